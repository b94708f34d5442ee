RAISE WARNING 'notifyman: a change is not reported, because the installation is damaged'
                USING HINT = 'Run `notifyman build` with the same options.';
            RETURN nothing;
