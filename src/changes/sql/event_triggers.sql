
CREATE EVENT TRIGGER notifyman_ddl ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE SCHEMA',
        'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA', 'ALTER TYPE',
        -- It can also rename a table's columns.
        'ALTER VIEW')
    EXECUTE FUNCTION notifyman.on_ddl();
CREATE EVENT TRIGGER notifyman_drop ON sql_drop EXECUTE FUNCTION notifyman.on_drop();
-- Triggers must match their tables' columns even if session_replication_role disables triggers.
ALTER EVENT TRIGGER notifyman_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER notifyman_drop ENABLE ALWAYS;
