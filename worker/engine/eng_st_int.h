/*
 * Between eng_st.c (files) and eng_st_parse.c (bytes) only.
 */
#ifndef ENG_ST_INT_H
#define ENG_ST_INT_H

#include "tokenizer/tok_json.h"
#include "worker/engine/eng_st.h"

/* Reads the header of files[file], which is in memory, into the table. */
int eng_st_header(eng_st_t *st, uint32_t file, eng_err_t *err);

/* Makes the hash over all names; ENG_EFORMAT for a name that stands twice. */
int eng_st_index(eng_st_t *st, eng_err_t *err);

/* The reader's last error as ours. */
int eng_st_json_error(const tok_json_t *j, eng_err_t *err);

#endif
