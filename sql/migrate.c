#include "sql/migrate.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "sql/migrations.h"

/* Any process that migrates waits for the one that does; its end, however it comes, lets go. */
#define LOCK "SELECT pg_advisory_lock(hashtextextended('modelforge.migrate', 0))"

/* What the migration's first line says: "-- min_compatible: 3". */
static long min_compatible(const struct mf_migration *migration) {
    static const char prefix[] = "-- min_compatible: ";
    bool said = !strncmp(migration->sql, prefix, sizeof prefix - 1);
    return said ? strtol(migration->sql + sizeof prefix - 1, NULL, 10) : migration->version;
}

static int newest_version(void) {
    return mf_migrations[mf_migration_count - 1].version;
}

static const struct mf_migration *find(int version) {
    for (int i = 1; i < mf_migration_count; i++)
        if (mf_migrations[i].version == version)
            return &mf_migrations[i];
    return NULL;
}

/* What the list says of the database: its newest version (0: nothing applied) and the greatest
 * min_compatible. Refuses an applied migration that is not ours as it stands. */
static enum mf_status compare(const PGresult *list, int *version, struct mf_error *error) {
    *version = 0;
    for (int row = 0; row < mf_result_rows(list); row++) {
        int applied = (int)mf_result_integer(list, row, 0);
        const struct mf_migration *ours = find(applied);
        char digest[MF_SHA256_TEXT_BYTES];
        *version = applied;
        if (mf_result_integer(list, row, 3) > newest_version())
            return mf_error_set(
                error, MF_ERROR_CONFIGURATION,
                "the database has migration %s, which programs before migration %lld cannot work "
                "with; this one knows up to %d: install the newer modelforge",
                mf_result_text(list, row, 1), (long long)mf_result_integer(list, row, 3), newest_version());
        if (!ours)
            continue; /* newer than this program, and compatible */
        enum mf_status status = mf_sha256_text(ours->sql, strlen(ours->sql), digest, error);
        if (status)
            return status;
        if (strcmp(digest, mf_result_text(list, row, 2)) != 0)
            return mf_error_set(
                error, MF_ERROR_CONFIGURATION,
                "migration %s was applied with sha256 %s, but this program's has %s: a released "
                "migration must not be edited",
                ours->name, mf_result_text(list, row, 2), digest);
    }
    return MF_OK;
}

static enum mf_status list_applied(struct mf_database *database, PGresult **list, struct mf_error *error) {
    PGresult *exists = NULL;
    enum mf_status status = mf_database_query(database, MF_QUERY_MIGRATIONS_EXIST, NULL, 0, &exists, error);
    bool any = !status && mf_result_boolean(exists, 0, 0);
    mf_result_free(exists);
    *list = NULL;
    return status || !any ? status
                          : mf_database_query(database, MF_QUERY_MIGRATIONS_LIST, NULL, 0, list, error);
}

static enum mf_status apply(struct mf_database *database, void *context, struct mf_error *error) {
    const struct mf_migration *migration = context;
    char digest[MF_SHA256_TEXT_BYTES];
    enum mf_status status = mf_sha256_text(migration->sql, strlen(migration->sql), digest, error);
    if (!status)
        status = mf_database_execute(database, migration->sql, error);
    const struct mf_parameter parameters[] = {mf_parameter_integer(migration->version),
                                              mf_parameter_text(migration->name), mf_parameter_text(digest),
                                              mf_parameter_integer(min_compatible(migration))};
    if (!status)
        status = mf_database_query(database, MF_QUERY_MIGRATION_INSERT, parameters, 4, NULL, error);
    if (status)
        mf_error_prefix(error, "migration %s", migration->name);
    return status;
}

static enum mf_status prepare(struct mf_database *database, void *context, struct mf_error *error) {
    (void)context;
    return mf_database_execute(database, mf_migrations[0].sql, error);
}

static bool known_group(const char *role) {
    return !strcmp(role, "modelforge_owner") || !strcmp(role, "modelforge_worker") ||
           !strcmp(role, "modelforge_reader");
}

/* CREATE ROLE when missing, then PASSWORD, membership and, for readers, a time limit. */
static enum mf_status make_login(struct mf_database *database, const struct mf_migrate_login *login,
                                 struct mf_error *error) {
    PGconn *connection = mf_database_handle(database);
    struct mf_text sql = {0};
    char *name = PQescapeIdentifier(connection, login->name, strlen(login->name));
    char *literal = PQescapeLiteral(connection, login->name, strlen(login->name));
    char *verifier = NULL, *password = NULL;
    enum mf_status status = MF_OK;
    if (!known_group(login->role)) {
        status = mf_error_set(error, MF_ERROR_CONFIGURATION, "'%s' is no role of modelforge", login->role);
        goto done;
    }
    if (login->password) {
        verifier = PQencryptPasswordConn(connection, login->password, login->name, "scram-sha-256");
        password = verifier ? PQescapeLiteral(connection, verifier, strlen(verifier)) : NULL;
    }
    if (!name || !literal || (login->password && !password)) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "login role %s: no memory", login->name);
        goto done;
    }
    mf_text_printf(
        &sql,
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) THEN CREATE ROLE %s LOGIN; "
        "END IF; END $$; GRANT %s TO %s;",
        literal, name, login->role, name);
    if (password)
        mf_text_printf(&sql, "ALTER ROLE %s LOGIN PASSWORD %s;", name, password);
    if (!strcmp(login->role, "modelforge_reader"))
        mf_text_printf(&sql, "ALTER ROLE %s SET statement_timeout = '30s';", name);
    status = mf_text_status(&sql, error);
    if (!status)
        status = mf_database_execute(database, sql.data, error);
    if (status)
        mf_error_prefix(error, "login role %s", login->name);
done:
    mf_text_free(&sql);
    PQfreemem(name);
    PQfreemem(literal);
    PQfreemem(password);
    PQfreemem(verifier);
    return status;
}

static enum mf_status migrate_locked(struct mf_database *database, const struct mf_migrate_options *options,
                                     struct mf_migrate_report *report, struct mf_error *error) {
    PGresult *list = NULL;
    enum mf_status status = mf_database_transaction(database, prepare, NULL, error);
    if (!status)
        status = mf_database_execute(database, "SET ROLE modelforge_owner", error);
    if (!status)
        status = list_applied(database, &list, error);
    if (!status)
        status = compare(list, &report->version, error);
    for (int i = 1; !status && i < mf_migration_count; i++) {
        struct mf_migration migration = mf_migrations[i];
        if (migration.version <= report->version)
            continue;
        status = mf_database_transaction(database, apply, &migration, error);
        if (!status) {
            report->applied++;
            report->version = migration.version;
        }
    }
    mf_result_free(list);
    if (!status)
        status = mf_database_execute(database, "RESET ROLE", error);
    for (size_t i = 0; !status && options && i < options->login_count; i++)
        status = make_login(database, &options->logins[i], error);
    return status;
}

enum mf_status mf_migrate(struct mf_database *database, const struct mf_migrate_options *options,
                          struct mf_migrate_report *report, struct mf_error *error) {
    struct mf_migrate_report local;
    if (!report)
        report = &local;
    *report = (struct mf_migrate_report){0};
    /* Another process may be at it for longer than a statement usually may take. */
    enum mf_status status = mf_database_execute(
        database, "SET statement_timeout = '10min'; SET lock_timeout = '10min'; " LOCK, error);
    if (status)
        return status;
    status = migrate_locked(database, options, report, error);
    /* A new session: lets go of the lock and the role, has the connection's own limits again. */
    struct mf_error ignored;
    enum mf_status after = mf_database_reconnect(database, status ? &ignored : error);
    return status ? status : after;
}

enum mf_status mf_migrate_check(struct mf_database *database, struct mf_error *error) {
    PGresult *list = NULL;
    int version = 0;
    enum mf_status status = list_applied(database, &list, error);
    if (!status)
        status = compare(list, &version, error);
    mf_result_free(list);
    if (!status && version < newest_version())
        status = mf_error_set(error, MF_ERROR_CONFIGURATION,
                              "the database's schema is at migration %d, this program needs %d: run "
                              "`modelforge migrate` as its owner",
                              version, newest_version());
    return status;
}

static enum mf_status renew(struct mf_database *database, void *context, struct mf_error *error) {
    (void)context;
    return mf_database_query(database, MF_QUERY_INCARNATION_RENEW, NULL, 0, NULL, error);
}

enum mf_status mf_migrate_renew_incarnation(struct mf_database *database, struct mf_error *error) {
    enum mf_status status = mf_database_execute(database, "SET ROLE modelforge_owner", error);
    if (!status)
        status = mf_database_transaction(database, renew, NULL, error);
    if (!status)
        status = mf_database_execute(database, "RESET ROLE", error);
    return status;
}
