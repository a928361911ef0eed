// Runs a fuzz target over files and folders of inputs, where libFuzzer's own driver is not there.
#include <dirent.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "fuzz_target.h"

static size_t played;

static void play_file(const char *path) {
    qn_buf text = {0};
    qn_err err = {0};
    if (!qn_file_read(path, (size_t)64 << 20, &text, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    uint8_t *exact = qn_alloc(text.n + 1); // a copy of exactly its size, so that ASan sees its end
    uint8_t *data = realloc(exact, text.n ? text.n : 1);
    memcpy(data, text.data, text.n);
    LLVMFuzzerTestOneInput(data, text.n);
    free(data);
    qn_buf_done(&text);
    played++;
}

static void play(const char *path) {
    DIR *d = qn_file_is_dir(path) ? opendir(path) : NULL;
    if (!d) {
        play_file(path);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        char *inner = qn_path_join(path, e->d_name);
        play(inner);
        free(inner);
    }
    closedir(d);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) play(argv[i]);
    printf("%zu inputs\n", played);
    return played > 0 ? 0 : 1; // an empty corpus tests nothing
}
