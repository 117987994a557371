-- Invariant: a command_id counts once.
INSERT INTO commands (command_id, tenant, request_id, action, expected_generation, reason, requested_by, outcome,
                      expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', now() + interval '1 day')
ON CONFLICT DO NOTHING
RETURNING command_id
