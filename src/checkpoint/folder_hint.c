/* What people have in the place of a model that can be read, and what to do about it. */
#define _GNU_SOURCE
#include "checkpoint/checkpoint_internal.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* The first row that anything in the folder matches speaks. */
static const struct kind {
  const char *patterns[5], *advice;
  bool readable; /* by gptvq: something else is missing */
} kinds[] = {
    {{"model-[0-9]*-of-[0-9]*.safetensors"},
     "download model.safetensors.index.json of the same model too",
     true},
    {{"adapter_model.*", "adapter_config.json"},
     "an adapter is not a model: merge it into its base model (peft: merge_and_unload, save_pretrained) and "
     "give that folder",
     false},
    {{"consolidated*.safetensors", "consolidated*.pth", "params.json"},
     "these are not in Hugging Face's format: download config.json, model*.safetensors and their index of "
     "the same model, or convert them",
     false},
    {{"*.gguf"}, "give the GGUF file itself, or the folder of the original model", false},
    {{"*.safetensors"},
     "call it model.safetensors if it is the whole model, else download model.safetensors.index.json too",
     true},
    {{"pytorch_model*.bin", "*.pth", "*.pt", "*.ckpt", "*.h5"},
     "these weights are not supported: convert the model to safetensors (transformers: from_pretrained, "
     "save_pretrained)",
     false},
    {{"*.incomplete", "*.part", "*.crdownload", "*.aria2"}, "the download is not finished", false},
    {{"snapshots"}, "this is the hub's cache: give one of the folders in snapshots", false},
};

static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static bool matches(const struct kind *kind, const char *name) {
  for (size_t i = 0; i < sizeof kind->patterns / sizeof kind->patterns[0] && kind->patterns[i] != NULL; i++)
    if (fnmatch(kind->patterns[i], name, 0) == 0) return true;
  return false;
}

const char *gptvq_folder_hint(const char *folder, const char *instead, char text[GPTVQ_HINT_TEXT]) {
  enum { SHOWN = 2 };
  struct dirent **entries;
  int count = scandir(folder, &entries, NULL, by_name);
  text[0] = '\0';
  for (size_t k = 0; count > 0 && text[0] == '\0' && k < sizeof kinds / sizeof kinds[0]; k++) {
    size_t found = 0, at = 0;
    for (int i = 0; i < count; i++) {
      if (!matches(&kinds[k], entries[i]->d_name) || ++found > SHOWN) continue;
      at += (size_t)snprintf(text + at, GPTVQ_HINT_TEXT - at, "%s%s", found > 1 ? ", " : "; it holds ",
                             entries[i]->d_name);
    }
    if (found > SHOWN)
      at += (size_t)snprintf(text + at, GPTVQ_HINT_TEXT - at, " and %zu more", found - SHOWN);
    if (found > 0)
      (void)snprintf(text + at, GPTVQ_HINT_TEXT - at, ": %s",
                     kinds[k].readable && instead != NULL ? instead : kinds[k].advice);
  }
  for (int i = 0; i < count; i++) free(entries[i]);
  if (count >= 0) free(entries);
  return text;
}
