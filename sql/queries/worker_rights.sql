-- Invariant: read only. Who this login is, whether it may do a worker's writes, and whether it may do what no worker
-- should: change or remove what was audited, or set caps.
SELECT session_user,
       has_table_privilege('job_events', 'INSERT') AND has_table_privilege('jobs', 'UPDATE')
           AND has_table_privilege('job_leases', 'DELETE') AS is_enough,
       has_table_privilege('job_events', 'UPDATE') OR has_table_privilege('job_events', 'DELETE')
           OR has_column_privilege('tenant_queues', 'cap', 'UPDATE') AS is_more
