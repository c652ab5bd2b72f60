/* The engine behind a handle, for the files of the addon that call modules of the engine
 * (addon_engine.c has the rest). */
#ifndef HEADRACE_ADDON_HOST_H
#define HEADRACE_ADDON_HOST_H

#include "addon.h"
#include "engine.h"

/* NULL once it is closed. */
engine *take_engine(arguments *args, int index);

/* JavaScript is reading the records of a round of it. Of an open engine only. */
bool host_is_in_round(arguments *args, int index);

#endif
