/* cli/lost_pages.h: mapped files that lose their pages while they are in use, as where another
 * program cuts a model's file off, or its disk fails. */
#ifndef CLI_LOST_PAGES_H
#define CLI_LOST_PAGES_H

/* From now on a use of a page that is gone (SIGBUS) ends the program with STATUS_FAILED and a line
 * that names the file. */
void lost_pages_watch(void);

#endif
