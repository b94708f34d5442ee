notifyman.check_log('notifyman.number'::pg_catalog.regclass,
            'notifyman.log_0'::pg_catalog.regclass, 'notifyman.log_1'::pg_catalog.regclass,
            'notifyman.log_2'::pg_catalog.regclass, 'notifyman.log_table'::pg_catalog.regclass,
            'notifyman.log_full'::pg_catalog.regclass, 'notifyman.log_dropped'::pg_catalog.regclass)
