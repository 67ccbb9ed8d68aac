/*
 * The folder of prepared files: bounded by number.  Files of a changed model
 * are replaced under their name; those of models that nobody configures any
 * more are the ones not used for longest.
 */

#ifndef WRK_CACHE_H
#define WRK_CACHE_H

#include <stdint.h>


#define WRK_CACHE_FILES_MAX  16     /* weights and tokenizers together */

/*
 * Removes our files (HASH-LAYOUT.img, its .tmp, HASH.tok; no other name is
 * touched) beyond the `keep` youngest.  An inference worker calls it when it
 * has written one; what cannot be removed stays.
 */
void wrk_cache_tidy(const char *dir, uint32_t keep);


#endif /* WRK_CACHE_H */
