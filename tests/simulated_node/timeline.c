/* What a scenario says at a time: curves and their integrals, processes, the clock. */
#include "scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static size_t first_point_after(const Curve *curve, double time)
{
    size_t low = 0, high = curve->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (curve->points[middle].time > time)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

double curve_value(const Curve *curve, double time)
{
    size_t after = first_point_after(curve, time);
    const Point *last = &curve->points[after ? after - 1 : 0], *next = last + 1;
    if (after == 0 || after == curve->count || curve->steps)
        return last->value;
    return last->value + (next->value - last->value) * (time - last->time) / (next->time - last->time);
}

double curve_integral(const Curve *curve, double time)
{
    size_t after = first_point_after(curve, time);
    const Point *last = &curve->points[after ? after - 1 : 0];
    return last->integral + (time - last->time) * (last->value + curve_value(curve, time)) / 2;
}

void add_point(Curve *curve, double time, double value)
{
    if ((curve->count & (curve->count - 1)) == 0) /* full: room grows in powers of two */
        curve->points = realloc(curve->points, (curve->count ? 2 * curve->count : 1) * sizeof(Point));
    Point *point = &curve->points[curve->count++];
    *point = (Point){time, value, 0};
    if (curve->count > 1) {
        const Point *last = point - 1;
        double height = (last->value + (curve->steps ? last->value : value)) / 2;
        point->integral = last->integral + (time - last->time) * height;
    }
}

/* The number on the first line of a file. False while there is none: a line still being written has no end. */
static bool number_in_file(const char *path, double *value)
{
    char line[64], *end;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    ssize_t length = read(descriptor, line, sizeof line - 1);
    close(descriptor);
    line[length > 0 ? length : 0] = '\0';
    *value = strtod(line, &end);
    return end != line && *end == '\n';
}

bool process_runs(const Process *process, double time, unsigned *pid)
{
    double real = 0;
    if (time < process->from || time >= process->to)
        return false;
    if (process->pid_file) {
        if (!number_in_file(process->pid_file, &real) || real < 1)
            return false;
        if (kill((pid_t)real, 0) != 0 && errno == ESRCH)
            return false;
    }
    *pid = process->pid ? process->pid : (unsigned)real;
    return true;
}

double scenario_time(const Node *node)
{
    struct timespec now;
    double start = node->start;
    if (node->clock)
        return *node->clock;
    if (node->start_file && !number_in_file(node->start_file, &start))
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - start;
}
