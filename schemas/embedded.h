/* The *.avsc files as text, made at build time. */
#ifndef MF_SCHEMAS_EMBEDDED_H
#define MF_SCHEMAS_EMBEDDED_H

extern const char mf_embedded_TrainingRequest[];
extern const char mf_embedded_TrainingCommand[];
extern const char mf_embedded_JobEvent[];

#endif
