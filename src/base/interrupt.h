// Ctrl-C as a flag that long work looks at.
#ifndef QN_BASE_INTERRUPT_H
#define QN_BASE_INTERRUPT_H

#include <stdbool.h>

// SIGINT, SIGTERM and SIGHUP (unless it is ignored, as under nohup) set the flag; a second one kills.
// SIGXFSZ is ignored: write() reports it.
void qn_interrupt_install(void);
bool qn_interrupted(void);
void qn_interrupt_raise(void); // as if Ctrl-C had come
void qn_interrupt_reset(void);

#endif
