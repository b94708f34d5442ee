-- Tries for 10 ms without queueing for the lock: writers would wait behind a queued request, and fail with a lock timeout.
            FOR attempt IN 1..10 LOOP
                BEGIN
                    EXECUTE {statement};
                    EXIT;
                EXCEPTION WHEN lock_not_available THEN
                    IF attempt = 10 THEN
                        RAISE;
                    END IF;
                    PERFORM pg_sleep(0.001);
                END;
            END LOOP;
