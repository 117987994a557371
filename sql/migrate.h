/* Brings a database to this program's schema: sql/migrations/NNNN_*.sql (embedded) in order, each in a
 * transaction of its own, all under one advisory lock, so that any number of processes may try at once. */
#ifndef MF_SQL_MIGRATE_H
#define MF_SQL_MIGRATE_H

#include "sql/database.h"

/* A login role that becomes a member of a modelforge role (made when missing). */
struct mf_migrate_login {
    const char *role;     /* "modelforge_owner", "modelforge_worker" or "modelforge_reader" */
    const char *name;     /* the login role */
    const char *password; /* NULL: leave as it is. Sent as a SCRAM verifier made here, never as text. */
};

struct mf_migrate_options {
    const struct mf_migrate_login *logins; /* may be NULL */
    size_t login_count;
};

struct mf_migrate_report {
    int applied; /* migrations this call applied */
    int version; /* the newest migration of the database now */
};

/* `database` is connected as a superuser, or as the database's owner with CREATEROLE. Roles that exist are
 * taken as they are. Refuses (MF_ERROR_CONFIGURATION) a database in which an applied migration differs from
 * ours (sha256) or that is newer than this program in a way it cannot work with. Calling it again changes
 * nothing. */
enum mf_status mf_migrate(struct mf_database *database, const struct mf_migrate_options *options,
                          struct mf_migrate_report *report, struct mf_error *error);

/* For workers and the client at start: MF_ERROR_CONFIGURATION with what to do when the schema is missing, too
 * old for this program, or so new that its `min_compatible` is above this program's newest migration. */
enum mf_status mf_migrate_check(struct mf_database *database, struct mf_error *error);

/* After a restore from a backup: gives the database a new incarnation, so that a lease of the lost time line
 * fences nothing any more. Run it before workers are let in. */
enum mf_status mf_migrate_renew_incarnation(struct mf_database *database, struct mf_error *error);

#endif
