/* Reads a scenario file; the grammar stands in scenario.h. */
#include "scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define QUANTITY_NAME(id, name, initial) name,
#define QUANTITY_INITIAL(id, name, initial) initial,
#define FIELD_NAME(id, name) name,
static const char *const quantity_names[] = {QUANTITIES(QUANTITY_NAME)};
static const double quantity_initials[] = {QUANTITIES(QUANTITY_INITIAL)};
static const char *const field_names[] = {FIELDS(FIELD_NAME)};

typedef struct {
    const char *path;
    unsigned number;
    const char *at;
} Line;

__attribute__((format(printf, 2, 3))) static bool fail(const Line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%u: ", line->path, line->number);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return false;
}

/* Each of the functions below takes the next thing from the line, and says what is wrong if it is not there. */

static bool more(Line *line)
{
    line->at += strspn(line->at, " \t");
    return *line->at != '\0';
}

static bool take(Line *line, char sign)
{
    bool found = more(line) && *line->at == sign;
    line->at += found;
    return found;
}

static bool take_word(Line *line, char word[TEXT_SIZE])
{
    size_t length = more(line) ? strcspn(line->at, " \t") : 0;
    if (length == 0 || length >= TEXT_SIZE)
        return fail(line, "expected a word at '%.40s'", line->at);
    snprintf(word, TEXT_SIZE, "%.*s", (int)length, line->at);
    line->at += length;
    return true;
}

static bool take_rest(Line *line, char text[TEXT_SIZE])
{
    if (!more(line))
        return fail(line, "expected some text");
    snprintf(text, TEXT_SIZE, "%s", line->at);
    line->at += strlen(line->at);
    return true;
}

static bool take_path(Line *line, char **path)
{
    if (!more(line))
        return fail(line, "expected a file");
    free(*path);
    *path = strdup(line->at);
    (*path)[strcspn(*path, " \t")] = '\0';
    line->at += strlen(*path);
    return true;
}

static bool take_number(Line *line, double *value)
{
    char *end;
    *value = strtod(line->at, &end);
    if (end == line->at || isnan(*value))
        return fail(line, "expected a number at '%.40s'", line->at);
    line->at = end;
    return true;
}

static bool take_integer(Line *line, int least, int most, int *value)
{
    double number;
    if (!take_number(line, &number))
        return false;
    if (number < least || number > most || number != floor(number))
        return fail(line, "%g is no whole number from %d to %d", number, least, most);
    *value = (int)number;
    return true;
}

static bool take_curve(Line *line, Curve *curve, bool steps)
{
    double time, value;
    curve->count = 0;
    curve->steps = steps;
    if (more(line) && strncmp(line->at, "step ", 5) == 0) {
        curve->steps = true;
        line->at += 5;
    }
    if (!take_number(line, &value))
        return false;
    if (!more(line)) {
        add_point(curve, 0, value);
        return true;
    }
    for (;;) {
        time = value;
        if (curve->count && time < curve->points[curve->count - 1].time)
            return fail(line, "the points of a curve stand in order of time; %g came late", time);
        if (!take(line, ':'))
            return fail(line, "expected TIME:VALUE before '%.40s'", line->at);
        if (!take_number(line, &value))
            return false;
        add_point(curve, time, value);
        if (!more(line))
            return true;
        if (!take_number(line, &value))
            return false;
    }
}

static bool read_process(Line *line, Gpu *gpu, bool graphics)
{
    int pid = 0;
    if (gpu->process_count == MAX_PROCESSES)
        return fail(line, "more than %d processes on a GPU", MAX_PROCESSES);
    Process *process = &gpu->processes[gpu->process_count++];
    process->graphics = graphics;
    if (!more(line) || (*line->at != '@' && !take_integer(line, 1, INT32_MAX, &pid)))
        return fail(line, "expected PID, @FILE or PID@FILE");
    process->pid = (unsigned)pid;
    if (*line->at == '@' && (line->at++, !take_path(line, &process->pid_file)))
        return false;
    return take_number(line, &process->from) && take_number(line, &process->to) &&
           take_curve(line, &process->memory, false);
}

static bool read_failure(Line *line, Gpu *gpu)
{
    if (gpu->failure_count == MAX_ERRORS)
        return fail(line, "more than %d errors of a GPU", MAX_ERRORS);
    Failure *failure = &gpu->failures[gpu->failure_count++];
    return take_number(line, &failure->from) && take_number(line, &failure->to) &&
           take_integer(line, 0, 999, &failure->code);
}

static bool read_not_supported(Line *line, Gpu *gpu)
{
    char name[TEXT_SIZE];
    while (more(line)) {
        unsigned field = 0;
        if (!take_word(line, name))
            return false;
        while (field < FIELD_COUNT && strcmp(field_names[field], name) != 0)
            field++;
        if (field == FIELD_COUNT)
            return fail(line, "unknown field '%s'", name);
        gpu->not_supported |= 1u << field;
    }
    return true;
}

static bool read_of_gpu(Line *line, const char *name, Gpu *gpu)
{
    if (strcmp(name, "name") == 0) return take_rest(line, gpu->name);
    if (strcmp(name, "uuid") == 0) return take_rest(line, gpu->uuid);
    if (strcmp(name, "process") == 0) return read_process(line, gpu, false);
    if (strcmp(name, "graphics") == 0) return read_process(line, gpu, true);
    if (strcmp(name, "error") == 0) return read_failure(line, gpu);
    if (strcmp(name, "na") == 0) return read_not_supported(line, gpu);
    for (unsigned quantity = 0; quantity < QUANTITY_COUNT; quantity++)
        if (strcmp(name, quantity_names[quantity]) == 0)
            return take_curve(line, &gpu->curves[quantity], quantity == REASONS);
    return fail(line, "unknown directive '%s'", name);
}

static bool read_of_gpus(Line *line, const char *name, Node *node)
{
    int first = 0, last = (int)node->gpu_count - 1;
    if (last < 0)
        return fail(line, "'%s' is unknown, or stands before gpus", name);
    if (!take(line, '*')) {
        if (!take_integer(line, 0, last, &first))
            return false;
        last = first;
    }
    for (const char *values = line->at; first <= last; first++) {
        line->at = values;
        if (!read_of_gpu(line, name, &node->gpus[first]))
            return false;
    }
    return true;
}

static bool read_gpu_count(Line *line, Node *node)
{
    int count;
    if (!take_integer(line, (int)node->gpu_count, MAX_GPUS, &count))
        return false;
    for (; node->gpu_count < (unsigned)count; node->gpu_count++) {
        Gpu *gpu = &node->gpus[node->gpu_count];
        snprintf(gpu->name, TEXT_SIZE, "Simulated GPU");
        snprintf(gpu->uuid, TEXT_SIZE, "GPU-00000000-0000-0000-0000-%012u", node->gpu_count);
        for (unsigned quantity = 0; quantity < QUANTITY_COUNT; quantity++)
            add_point(&gpu->curves[quantity], 0, quantity_initials[quantity]);
    }
    return true;
}

static bool read_clock(Line *line, Node *node)
{
    char *path = NULL;
    if (!take_path(line, &path))
        return false;
    void *mapped = MAP_FAILED;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0 && lseek(descriptor, 0, SEEK_END) >= (off_t)sizeof(double))
        mapped = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, descriptor, 0);
    if (descriptor >= 0)
        close(descriptor);
    node->clock = mapped == MAP_FAILED ? NULL : mapped;
    bool found = node->clock || fail(line, "cannot map the 8 bytes of the clock %s", path);
    free(path);
    return found;
}

static bool read_directive(Line *line, Node *node)
{
    char name[TEXT_SIZE];
    if (!take_word(line, name)) return false;
    if (strcmp(name, "driver") == 0) return take_rest(line, node->driver);
    if (strcmp(name, "cuda") == 0) return take_integer(line, 0, INT32_MAX, &node->cuda);
    if (strcmp(name, "init") == 0) return take_integer(line, 0, 999, &node->init_code);
    if (strcmp(name, "gpus") == 0) return read_gpu_count(line, node);
    if (strcmp(name, "clock") == 0) return read_clock(line, node);
    if (strcmp(name, "start") != 0) return read_of_gpus(line, name, node);
    return take(line, '@') ? take_path(line, &node->start_file) : take_number(line, &node->start);
}

static bool read_line(Line *line, Node *node)
{
    return !more(line) || (read_directive(line, node) && (!more(line) || fail(line, "too much: '%.40s'", line->at)));
}

bool read_scenario(const char *path, Node *node)
{
    Line line = {.path = path};
    char *text = NULL;
    size_t room = 0;
    bool well = true;
    FILE *stream = fopen(path, "re");
    if (!stream)
        return fail(&line, "%s", strerror(errno));
    while (well && getline(&text, &room, stream) >= 0) {
        text[strcspn(text, "#\r\n")] = '\0';
        line.number++;
        line.at = text;
        well = read_line(&line, node);
    }
    free(text);
    fclose(stream);
    return well;
}

void clear_scenario(Node *node)
{
    for (unsigned index = 0; index < node->gpu_count; index++) {
        Gpu *gpu = &node->gpus[index];
        for (unsigned quantity = 0; quantity < QUANTITY_COUNT; quantity++)
            free(gpu->curves[quantity].points);
        for (unsigned process = 0; process < gpu->process_count; process++) {
            free(gpu->processes[process].pid_file);
            free(gpu->processes[process].memory.points);
        }
    }
    if (node->clock)
        munmap((void *)(uintptr_t)node->clock, sizeof(double));
    free(node->start_file);
    memset(node, 0, sizeof *node);
}
