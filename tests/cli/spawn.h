// Running the program as a user does, and looking at what came out.
#ifndef QN_TESTS_SPAWN_H
#define QN_TESTS_SPAWN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define TINY "models/tiny-qwen3"
#define TINY_INT8 "models/tiny-qwen3-gptq-int8"

typedef struct outcome {
    int status; // exit status; 1000 + signal when one ended the program
    char *out, *err;
    size_t n_out, n_err;
} outcome;

// How the program is run; {0} is plain.
typedef struct surroundings {
    const char *input;      // stdin; NULL: empty
    const char *stdout_to;  // a path instead of memory, "-" closed
    long file_size;         // RLIMIT_FSIZE in bytes; 0: none
    long memory;            // RLIMIT_AS in bytes; 0: none
    bool interrupt;         // SIGINT once something came out
} surroundings;

// Arguments end with NULL; a single "a b c" is not split.
outcome spawn(const surroundings *s, const char *const *args);
void outcome_done(outcome *o);

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

// Runs, checks the exit status, and wants each given text on stderr ("" : empty stderr).
void expect_error(const surroundings *s, int status, const char *text, const char *const *args);
// Runs with success and returns stdout (free it).
char *output_of(const surroundings *s, const char *const *args);
// The same, parsed as exactly one JSON document.
json_t *json_of(const surroundings *s, const char *const *args);

char *scratch(const char *name); // a path in this program's own temporary folder; allocated
void write_file(const char *path, const char *text);
void scratch_done(void);         // removes the folder

#endif
