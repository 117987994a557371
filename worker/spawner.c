#include "worker/spawner.h"

#include <pthread.h>
#include <stdlib.h>

struct order {
    const struct mf_process_options *options;
    struct mf_process *process;
    struct mf_error *error;
    enum mf_status status;
    bool done;
    struct order *next;
};

struct mf_spawner {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct order *first; /* any order: starting is quick */
    bool stop;
};

static void *spawner_main(void *argument) {
    struct mf_spawner *spawner = argument;
    pthread_mutex_lock(&spawner->lock);
    for (;;) {
        while (!spawner->first && !spawner->stop)
            pthread_cond_wait(&spawner->changed, &spawner->lock);
        struct order *order = spawner->first;
        if (!order)
            break;
        spawner->first = order->next;
        pthread_mutex_unlock(&spawner->lock);
        enum mf_status status = mf_process_spawn(order->options, order->process, order->error);
        pthread_mutex_lock(&spawner->lock);
        order->status = status;
        order->done = true;
        pthread_cond_broadcast(&spawner->changed);
    }
    pthread_mutex_unlock(&spawner->lock);
    return NULL;
}

enum mf_status mf_spawner_start(struct mf_spawner **spawner, struct mf_error *error) {
    struct mf_spawner *made = calloc(1, sizeof *made);
    *spawner = NULL;
    if (!made)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the spawner");
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->changed, NULL);
    int failure = pthread_create(&made->thread, NULL, spawner_main, made);
    if (failure) {
        free(made);
        return mf_error_errno(error, failure, "spawner thread");
    }
    *spawner = made;
    return MF_OK;
}

void mf_spawner_stop(struct mf_spawner *spawner) {
    if (!spawner)
        return;
    pthread_mutex_lock(&spawner->lock);
    spawner->stop = true;
    pthread_cond_broadcast(&spawner->changed);
    pthread_mutex_unlock(&spawner->lock);
    pthread_join(spawner->thread, NULL);
    pthread_mutex_destroy(&spawner->lock);
    pthread_cond_destroy(&spawner->changed);
    free(spawner);
}

enum mf_status mf_spawner_spawn(struct mf_spawner *spawner, const struct mf_process_options *options,
                                struct mf_process *process, struct mf_error *error) {
    struct order order = {.options = options, .process = process, .error = error};
    pthread_mutex_lock(&spawner->lock);
    order.next = spawner->first;
    spawner->first = &order;
    pthread_cond_broadcast(&spawner->changed);
    while (!order.done)
        pthread_cond_wait(&spawner->changed, &spawner->lock);
    pthread_mutex_unlock(&spawner->lock);
    return order.status;
}
