/* cli/interrupt.h: Ctrl-C, which stays without effect where the program was started so, as shells do
 * in the background. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on the first Ctrl-C is only noted; the second ends the program as it always does. */
void interrupt_watch(void);
bool interrupt_seen(void);

/* For a command that goes on after Ctrl-C: each one is noted until interrupt_forget. */
void interrupt_catch(void);
void interrupt_forget(void);

#endif
