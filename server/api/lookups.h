/* server/api/lookups.h: answers that no text has to be written for: JSON to be released with free(), NULL
 * with an error. */
#ifndef GPTVQ_SERVER_API_LOOKUPS_H
#define GPTVQ_SERVER_API_LOOKUPS_H

#include "server/api/error.h"
#include "server/api/service.h"

char *gptvq_api_models(const gptvq_service *service, gptvq_api_error *error);
/* One of them; id: what follows /v1/models/. */
char *gptvq_api_model(const gptvq_service *service, const char *id, gptvq_api_error *error);
char *gptvq_api_tokenize(const gptvq_service *service, const char *body, size_t size, gptvq_api_error *error);
char *gptvq_api_detokenize(const gptvq_service *service, const char *body, size_t size,
                           gptvq_api_error *error);

#endif
