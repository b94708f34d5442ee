-- These settings do not exist in all versions: `idle_session_timeout` since 14, `transaction_timeout` since 17.
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
WHERE name IN ('idle_session_timeout', 'transaction_timeout')
