/* base/file.h: read-only mappings and files that appear whole or not at all. */
#ifndef GPTVQ_BASE_FILE_H
#define GPTVQ_BASE_FILE_H

#include "base/status.h"
#include <stdbool.h>

typedef struct gptvq_mapping {
  const uint8_t *data; /* NULL for an empty file */
  size_t size;
} gptvq_mapping;

/* "cannot VERB PATH: " and the reason in errno: GPTVQ_ERROR_MEMORY when that is memory, else GPTVQ_ERROR_IO.
 */
gptvq_status gptvq_fail_errno(gptvq_error *err, const char *verb, const char *path);

/* Maps a regular file read-only. GPTVQ_ERROR_IO with the path and the system's reason, also for what is no
 * regular file (a FIFO is not waited for). */
gptvq_status gptvq_map_file(const char *path, gptvq_mapping *out, gptvq_error *err);
void gptvq_unmap_file(gptvq_mapping *mapping);
/* Bytes of a mapped file that will not be looked at for a while: they no longer count as this process's
 * memory, and are read again when they are. Other memory: nothing happens. */
void gptvq_mapping_rest(const void *data, size_t bytes);

/* Whole file as a malloc'd, NUL-terminated buffer; refuses more than max_size bytes (GPTVQ_ERROR_FORMAT). */
gptvq_status gptvq_read_file(const char *path, size_t max_size, char **data, size_t *size, gptvq_error *err);

/* GPTVQ_ERROR_FORMAT when that is what Git leaves in the place of a large file that was not downloaded. */
gptvq_status gptvq_check_lfs(const char *path, const void *data, size_t size, gptvq_error *err);

/* Writes to "PATH.tmp.PID" and renames on commit (write, fsync, rename, fsync of the folder). */
typedef struct gptvq_writer gptvq_writer;
gptvq_status gptvq_writer_open(const char *path, gptvq_writer **out, gptvq_error *err);
gptvq_status gptvq_writer_write(gptvq_writer *writer, const void *data, size_t size, gptvq_error *err);
/* Both release the writer, also on failure; a failed commit leaves no temporary file. */
gptvq_status gptvq_writer_commit(gptvq_writer *writer, gptvq_error *err);
void gptvq_writer_abort(gptvq_writer *writer); /* NULL is fine */

gptvq_status gptvq_write_file(const char *path, const void *data, size_t size, gptvq_error *err);

bool gptvq_path_exists(const char *path);
uint64_t gptvq_file_size(const char *path); /* 0 if there is none */
bool gptvq_is_folder(const char *path);
gptvq_status gptvq_make_folder(const char *path, gptvq_error *err); /* fine if it is there already */
/* Calls visit(context, folder, name) for each entry of an open folder, in no order, without any allocation;
 * false when it returns false or the folder cannot be read, with the reason in errno. */
typedef bool (*gptvq_visit_entry)(void *context, int folder, const char *name);
bool gptvq_each_entry(int folder, gptvq_visit_entry visit, void *context);
gptvq_status gptvq_remove_tree(const char *path,
                               gptvq_error *err); /* fine if it is absent; never follows links */
gptvq_status gptvq_sync_parent(const char *path, gptvq_error *err); /* fsync of the parent folder */
gptvq_status gptvq_rename_path(const char *from, const char *to,
                               gptvq_error *err); /* rename + fsync of the parent folder */

/* malloc'd "FOLDER/NAME"; NULL when out of memory */
char *gptvq_join_path(const char *folder, const char *name);

#endif
