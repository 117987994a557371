-- Invariant: only within the transaction that took the batch's number. recorded_at is the database's clock.
COPY step_metrics (job_id, epoch, step, training_epoch, loss, learning_rate, gradient_norm, tokens,
                   tokens_per_second, elapsed_seconds) FROM STDIN
