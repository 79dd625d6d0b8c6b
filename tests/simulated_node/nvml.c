/* A simulated node's libnvidia-ml.so.1: the calls of NVML that nvidia-ml-py makes, answered from the scenario that
 * $ZOO_BENCH_SIMULATED_NODE names (its grammar: scenario.h). A scenario that cannot be read is NVML_ERROR_UNKNOWN, with
 * a line on stderr. Names, units and structures are those of NVML's own reference; node.py builds the library.
 */
#include "scenario.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};
enum { MAX_LINKS = 18, MEMORY_CLOCK = 2 /* of graphics, SM, memory */, ALWAYS = FIELD_COUNT };

static Node node;
static unsigned users; /* of the library, as nvmlInit and nvmlShutdown count them */
static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the library ---- */

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    const char *path = getenv("ZOO_BENCH_SIMULATED_NODE");
    int code = SUCCESS;
    pthread_mutex_lock(&users_lock);
    if (users == 0) {
        if (!path)
            fputs("ZOO_BENCH_SIMULATED_NODE names no scenario file\n", stderr);
        code = path && read_scenario(path, &node) ? node.init_code : UNKNOWN;
        if (code != SUCCESS)
            clear_scenario(&node);
    }
    users += code == SUCCESS;
    pthread_mutex_unlock(&users_lock);
    return code;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    pthread_mutex_lock(&users_lock);
    int code = users ? SUCCESS : UNINITIALIZED;
    if (users == 1)
        clear_scenario(&node);
    users -= users > 0;
    pthread_mutex_unlock(&users_lock);
    return code;
}

/* nvidia-ml-py knows the words for the common codes by itself. */
const char *nvmlErrorString(int code)
{
    return code == SUCCESS ? "Success" : code == GPU_IS_LOST ? "GPU is lost" : "Simulated error";
}

static int copy_text(const char *text, char *into, unsigned size)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(into, text);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    return users ? copy_text(node.driver, version, size) : UNINITIALIZED;
}

int nvmlSystemGetNVMLVersion(char *version, unsigned size)
{
    char text[TEXT_SIZE + 16];
    snprintf(text, sizeof text, "%d.%s", node.cuda / 1000, node.driver);
    return users ? copy_text(text, version, size) : UNINITIALIZED;
}

int nvmlSystemGetCudaDriverVersion(int *version)
{
    *version = node.cuda;
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return nvmlSystemGetCudaDriverVersion(version);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = node.gpu_count;
    return users ? SUCCESS : UNINITIALIZED;
}

/* ---- one GPU ---- */

/* Why a call about `field` of a GPU has no answer now; SUCCESS where it has one. */
static int refusal(const Gpu *gpu, unsigned field)
{
    if (users == 0)
        return UNINITIALIZED;
    if (gpu < node.gpus || gpu >= node.gpus + node.gpu_count)
        return INVALID_ARGUMENT;
    double time = scenario_time(&node);
    for (unsigned index = 0; index < gpu->failure_count; index++)
        if (gpu->failures[index].from <= time && time < gpu->failures[index].to)
            return gpu->failures[index].code;
    return gpu->not_supported >> field & 1 ? NOT_SUPPORTED : SUCCESS;
}

/* What the GPU has of a quantity now, in NVML's unit: `scale` of ours. */
static double now(const Gpu *gpu, Quantity quantity, double scale)
{
    return round(scale * curve_value(&gpu->curves[quantity], scenario_time(&node)));
}

static int answer(const Gpu *gpu, unsigned field, Quantity quantity, double scale, unsigned *value)
{
    int code = refusal(gpu, field);
    if (code == SUCCESS)
        *value = (unsigned)now(gpu, quantity, scale);
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu)
{
    *gpu = &node.gpus[index < MAX_GPUS ? index : 0];
    return index < MAX_GPUS ? refusal(*gpu, ALWAYS) : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Gpu **gpu)
{
    for (*gpu = node.gpus; *gpu < node.gpus + node.gpu_count; ++*gpu)
        if (strcmp((*gpu)->uuid, uuid) == 0)
            return refusal(*gpu, ALWAYS);
    return users ? NOT_FOUND : UNINITIALIZED;
}

int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned size)
{
    int code = refusal(gpu, ALWAYS);
    return code == SUCCESS ? copy_text(gpu->name, name, size) : code;
}

int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned size)
{
    int code = refusal(gpu, ALWAYS);
    return code == SUCCESS ? copy_text(gpu->uuid, uuid, size) : code;
}

int nvmlDeviceGetIndex(Gpu *gpu, unsigned *index)
{
    int code = refusal(gpu, ALWAYS);
    if (code == SUCCESS)
        *index = (unsigned)(gpu - node.gpus);
    return code;
}

typedef struct {
    char legacy_bus_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} PciInfo;

int nvmlDeviceGetPciInfo_v3(Gpu *gpu, PciInfo *info)
{
    int code = refusal(gpu, ALWAYS);
    if (code == SUCCESS) {
        *info = (PciInfo){.bus = (unsigned)(gpu - node.gpus) + 1};
        snprintf(info->legacy_bus_id, sizeof info->legacy_bus_id, "0000:%02X:00.0", info->bus);
        snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    }
    return code;
}

int nvmlDeviceGetCudaComputeCapability(Gpu *gpu, int *major, int *minor)
{
    unsigned capability = 0;
    int code = answer(gpu, ALWAYS, CAPABILITY, 1, &capability);
    *major = (int)capability / 10;
    *minor = (int)capability % 10;
    return code;
}

/* ---- memory and processes ---- */

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory_v2;

static double held(const Gpu *gpu)
{
    double time = scenario_time(&node), sum = 0;
    unsigned pid;
    for (const Process *process = gpu->processes; process < gpu->processes + gpu->process_count; process++)
        if (process_runs(process, time, &pid))
            sum += round(curve_value(&process->memory, time));
    return sum;
}

int nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory_v2 *memory)
{
    int code = refusal(gpu, F_MEMORY);
    if (code == SUCCESS && memory->version != (sizeof *memory | 2u << 24))
        return VERSION_MISMATCH;
    if (code == SUCCESS) {
        double total = now(gpu, TOTAL, 1), reserved = now(gpu, RESERVED, 1);
        double used = fmin(held(gpu), total - reserved);
        memory->total = (unsigned long long)total;
        memory->reserved = (unsigned long long)reserved;
        memory->used = (unsigned long long)used;
        memory->free = (unsigned long long)(total - reserved - used);
    }
    return code;
}

/* The first version counts what is reserved as used. */
int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory)
{
    Memory_v2 full = {.version = sizeof full | 2u << 24};
    int code = nvmlDeviceGetMemoryInfo_v2(gpu, &full);
    if (code == SUCCESS)
        *memory = (Memory){full.total, full.free, full.used + full.reserved};
    return code;
}

typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } ProcessInfo;

static int list_processes(const Gpu *gpu, bool graphics, unsigned *count, ProcessInfo *infos)
{
    unsigned found = 0, room = *count, pid;
    int code = refusal(gpu, F_PROCESSES);
    if (code != SUCCESS)
        return code;
    double time = scenario_time(&node);
    for (const Process *process = gpu->processes; process < gpu->processes + gpu->process_count; process++) {
        if (process->graphics != graphics || !process_runs(process, time, &pid))
            continue;
        if (infos && found < room) {
            unsigned long long used = (unsigned long long)round(curve_value(&process->memory, time));
            bool hidden = gpu->not_supported >> F_PROCESS_MEMORY & 1;
            infos[found] = (ProcessInfo){pid, hidden ? ~0ull : used, UINT32_MAX, UINT32_MAX};
        }
        found++;
    }
    *count = found;
    return found > (infos ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, ProcessInfo *infos)
{
    return list_processes(gpu, false, count, infos);
}

int nvmlDeviceGetComputeRunningProcesses_v2(Gpu *gpu, unsigned *count, ProcessInfo *infos)
{
    return list_processes(gpu, false, count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Gpu *gpu, unsigned *count, ProcessInfo *infos)
{
    return list_processes(gpu, true, count, infos);
}

/* ---- power, clocks, temperature, load ---- */

int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *milliwatts)
{
    return answer(gpu, F_POWER, POWER, 1e3, milliwatts);
}

int nvmlDeviceGetPowerManagementLimit(Gpu *gpu, unsigned *milliwatts)
{
    return answer(gpu, F_POWER_LIMIT, POWER_LIMIT, 1e3, milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *millijoules)
{
    int code = refusal(gpu, F_ENERGY);
    if (code == SUCCESS) {
        const Curve *power = &gpu->curves[POWER];
        double time = scenario_time(&node);
        double step = curve_value(&gpu->curves[ENERGY_STEP], time);
        if (step > 0)
            time = step * floor(time / step + 1e-9); /* 0.3 / 0.1 is a little under 3 */
        double joules = curve_integral(power, time) - curve_integral(power, 0);
        *millijoules = (unsigned long long)fmax(0, 1e3 * (curve_value(&gpu->curves[ENERGY_START], time) + joules));
    }
    return code;
}

int nvmlDeviceGetClockInfo(Gpu *gpu, unsigned type, unsigned *megahertz)
{
    Quantity clock = type == MEMORY_CLOCK ? MEM_CLOCK : SM_CLOCK;
    return type > MEMORY_CLOCK ? INVALID_ARGUMENT : answer(gpu, F_CLOCKS, clock, 1e-6, megahertz);
}

int nvmlDeviceGetMaxClockInfo(Gpu *gpu, unsigned type, unsigned *megahertz)
{
    Quantity clock = type == MEMORY_CLOCK ? MAX_MEM_CLOCK : MAX_SM_CLOCK;
    return type > MEMORY_CLOCK ? INVALID_ARGUMENT : answer(gpu, F_CLOCKS, clock, 1e-6, megahertz);
}

int nvmlDeviceGetCurrentClocksEventReasons(Gpu *gpu, unsigned long long *reasons)
{
    unsigned bits = 0;
    int code = answer(gpu, F_REASONS, REASONS, 1, &bits);
    *reasons = bits;
    return code;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(gpu, reasons);
}

int nvmlDeviceGetTemperature(Gpu *gpu, unsigned sensor, unsigned *celsius)
{
    return sensor ? INVALID_ARGUMENT : answer(gpu, F_TEMPERATURE, TEMPERATURE, 1, celsius);
}

typedef struct { unsigned version, sensor; int celsius; } Temperature;

int nvmlDeviceGetTemperatureV(Gpu *gpu, Temperature *temperature)
{
    if (temperature->version != (sizeof *temperature | 1u << 24))
        return VERSION_MISMATCH;
    return nvmlDeviceGetTemperature(gpu, temperature->sensor, (unsigned *)&temperature->celsius);
}

typedef struct { unsigned gpu, memory; } Utilization;

/* As in NVML, there is none for a GPU that is divided into instances. */
int nvmlDeviceGetUtilizationRates(Gpu *gpu, Utilization *percent)
{
    int code = answer(gpu, F_UTILIZATION, UTILIZATION, 100, &percent->gpu);
    if (code == SUCCESS && now(gpu, MIG, 1) != 0)
        return NOT_SUPPORTED;
    return code == SUCCESS ? answer(gpu, F_UTILIZATION, MEM_UTILIZATION, 100, &percent->memory) : code;
}

int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *current, unsigned *pending)
{
    int code = answer(gpu, F_MIG, MIG, 1, current);
    return code == SUCCESS ? answer(gpu, F_MIG, MIG, 1, pending) : code;
}

/* ---- between GPUs ---- */

int nvmlDeviceGetNvLinkState(Gpu *gpu, unsigned link, unsigned *active)
{
    unsigned links = 0;
    int code = answer(gpu, F_NVLINK, NVLINKS, 1, &links);
    if (code == SUCCESS && link >= MAX_LINKS)
        return INVALID_ARGUMENT;
    *active = link < links;
    return code == SUCCESS && links == 0 ? NOT_SUPPORTED : code;
}

int nvmlDeviceGetTopologyCommonAncestor(Gpu *first, Gpu *second, unsigned *level)
{
    int code = answer(second, ALWAYS, TOPOLOGY, 1, level);
    if (first == second)
        *level = 0;
    return code == SUCCESS ? refusal(first, ALWAYS) : code;
}
