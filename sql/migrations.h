/* The embedded migrations, in order; number 0 prepares and is run every time. */
#ifndef MF_SQL_MIGRATIONS_H
#define MF_SQL_MIGRATIONS_H

struct mf_migration {
    int version;
    const char *name, *sql;
};
extern const struct mf_migration mf_migrations[];
extern const int mf_migration_count;

#endif
