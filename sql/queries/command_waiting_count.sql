-- Invariant: commands without a request are bounded a tenant.
SELECT count(*) FROM (SELECT FROM commands WHERE tenant = $1 AND outcome = 'waiting' AND expires_at > now()
                      LIMIT $2) AS waiting
