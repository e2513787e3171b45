/* The harness of the layer's own tests: CHECK, and deaths, which happen in a child. */
#ifndef CUO_CHECK_H
#define CUO_CHECK_H

#include <functional>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition);               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* f must end the process with status 86 and a message that has the text in it. */
static inline void check_dies(const char *text, const std::function<void()> &f)
{
    int fd[2];
    CHECK(!pipe(fd));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        dup2(fd[1], 2);
        f();
        _exit(0);
    }
    close(fd[1]);
    std::string said;
    char buffer[4096];
    for (ssize_t n; (n = read(fd[0], buffer, sizeof buffer)) > 0;)
        said.append(buffer, (size_t)n);
    close(fd[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 86 || said.find(text) == std::string::npos) {
        fprintf(stderr, "expected status 86 and '%s', found status %d and:\n%s\n", text, status,
            said.c_str());
        exit(1);
    }
}

#endif
