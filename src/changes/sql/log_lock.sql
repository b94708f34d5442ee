-- For 10 ms, without a place in the queue: writers would wait behind it for as long, and fail if they may not.
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
