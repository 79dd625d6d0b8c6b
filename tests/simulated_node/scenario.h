/* The scenario of a simulated node: what its GPUs do over time, as a text file says it.
 *
 * One directive a line; # begins a comment. GPU is an index, or * for all of them. Units are seconds, bytes, watts,
 * joules, hertz, degrees Celsius and fractions.
 *
 *   driver TEXT, cuda NUMBER          versions; 12080 is CUDA 12.8
 *   init CODE                         nvmlInit answers with this nvmlReturn_t
 *   clock FILE                        scenario time is the little-endian double in FILE, which is mapped
 *   start SECONDS | @FILE             without a clock: CLOCK_MONOTONIC at scenario time 0; @FILE: the number on its
 *                                     line, and until there is one scenario time stays 0
 *   gpus NUMBER                       stands before everything that names a GPU
 *   name GPU TEXT, uuid GPU TEXT
 *   QUANTITY GPU CURVE                one of QUANTITIES
 *   process GPU PID FROM TO CURVE     a compute process and its memory, there while FROM <= time < TO (-inf and inf
 *                                     will do). PID is a number; or @FILE, the number on the line of that file, while
 *                                     such a process runs; or NUMBER@FILE, likewise, but NVML reports NUMBER, as where
 *                                     a container hides the host's PIDs
 *   graphics GPU PID FROM TO CURVE    the same for a graphics process
 *   na GPU FIELD...                   not supported, some of FIELDS; process_memory becomes NVML's "N/A"
 *   error GPU FROM TO CODE            every call about the GPU answers with this nvmlReturn_t
 *
 * CURVE is one number for all times, or TIME:VALUE ... in order of time, joined by straight lines; after the word
 * `step` each value holds until the next. Before its first point and after its last a curve is flat; of two points at
 * one time the later counts from then on. Memory in use is what is reserved and what all processes hold. The energy
 * counter is energy_start plus the exact integral of power from time 0, brought up to date every energy_step seconds
 * (0: at once).
 */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <stdbool.h>
#include <stddef.h>

enum { MAX_GPUS = 16, MAX_PROCESSES = 64, MAX_ERRORS = 16, TEXT_SIZE = 96 };

/* X(identifier, name, what a GPU has that the scenario does not say otherwise of). `reasons`, bits of
 * nvmlClocksEventReasons, always go in steps; capability 90 is 9.0; topology is an nvmlGpuTopologyLevel_t. */
#define QUANTITIES(X) \
    X(TOTAL, "total", 80.0 * (1 << 30)) \
    X(RESERVED, "reserved", 0.5 * (1 << 30)) \
    X(POWER, "power", 100) \
    X(POWER_LIMIT, "power_limit", 700) \
    X(ENERGY_START, "energy_start", 0) \
    X(ENERGY_STEP, "energy_step", 0) \
    X(SM_CLOCK, "sm_clock", 345e6) \
    X(MEM_CLOCK, "mem_clock", 2619e6) \
    X(MAX_SM_CLOCK, "max_sm_clock", 1980e6) \
    X(MAX_MEM_CLOCK, "max_mem_clock", 2619e6) \
    X(REASONS, "reasons", 0) \
    X(TEMPERATURE, "temperature", 30) \
    X(UTILIZATION, "utilization", 0) \
    X(MEM_UTILIZATION, "mem_utilization", 0) \
    X(CAPABILITY, "capability", 90) \
    X(MIG, "mig", 0) \
    X(NVLINKS, "nvlinks", 0) \
    X(TOPOLOGY, "topology", 50)

/* X(identifier, name): what `na` may name. */
#define FIELDS(X) \
    X(F_MEMORY, "memory") \
    X(F_POWER, "power") \
    X(F_POWER_LIMIT, "power_limit") \
    X(F_ENERGY, "energy") \
    X(F_CLOCKS, "clocks") \
    X(F_REASONS, "reasons") \
    X(F_TEMPERATURE, "temperature") \
    X(F_UTILIZATION, "utilization") \
    X(F_PROCESSES, "processes") \
    X(F_PROCESS_MEMORY, "process_memory") \
    X(F_MIG, "mig") \
    X(F_NVLINK, "nvlink")

#define QUANTITY_ID(id, name, initial) id,
#define FIELD_ID(id, name) id,
typedef enum { QUANTITIES(QUANTITY_ID) QUANTITY_COUNT } Quantity;
typedef enum { FIELDS(FIELD_ID) FIELD_COUNT } Field;

typedef struct { double time, value, integral; } Point;
typedef struct { Point *points; size_t count; bool steps; } Curve;
typedef struct { double from, to; int code; } Failure;
typedef struct {
    unsigned pid; /* as NVML reports it; 0: the one in the file */
    char *pid_file;
    double from, to;
    bool graphics;
    Curve memory;
} Process;

typedef struct {
    char name[TEXT_SIZE], uuid[TEXT_SIZE];
    Curve curves[QUANTITY_COUNT];
    Process processes[MAX_PROCESSES];
    Failure failures[MAX_ERRORS];
    unsigned process_count, failure_count;
    unsigned not_supported; /* bit F_... */
} Gpu;

typedef struct {
    int init_code, cuda;
    char driver[TEXT_SIZE];
    const volatile double *clock;
    double start;
    char *start_file;
    unsigned gpu_count;
    Gpu gpus[MAX_GPUS];
} Node;

/* Read the file at `path` into an empty node; false after a line on stderr that says where and what is wrong. */
bool read_scenario(const char *path, Node *node);

/* Give back what read_scenario took, and empty the node. */
void clear_scenario(Node *node);

double scenario_time(const Node *node);

void add_point(Curve *curve, double time, double value); /* not before its last point */
double curve_value(const Curve *curve, double time);
double curve_integral(const Curve *curve, double time); /* from its first point */

/* Whether the process is there at `time`, and the PID that NVML reports. */
bool process_runs(const Process *process, double time, unsigned *pid);

#endif
