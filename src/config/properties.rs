//! Properties of every connection string, file and configuration, checked by proptest and used as fuzz bodies.

use std::path::PathBuf;

use super::tls::TlsSettings;
use super::values::ConfigValues;
use super::{Config, dsn, passfile, service};

/// Checks for any bytes: nothing panics, no error contains the password, and a string that was accepted has the same
/// meaning after it was written in either form.
pub(crate) fn fuzz_dsn(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::without_env(&text) {
        Ok(config) => {
            for written in [to_pairs(&config.inner), to_url(&config.inner)] {
                let again = Config::without_env(&written).ok();
                assert_eq!(again.as_ref(), Some(&config), "written as {written:?}");
            }
            assert_shows_nothing(&config);
            let _ = (config.endpoints(), config.startup_parameters());
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(['\n', '\r']), "an error is one line: {shown:?}");
            for secret in passwords(&text) {
                assert!(!recognisable(&secret) || !shown.contains(&secret), "{shown:?} shows {secret:?}");
            }
        }
    }
}

/// Checks for any contents of a service or password file: nothing panics, a section has the same meaning after it was
/// written again, and the line that contains the password also gives it alone. The first line of the input is the text
/// to find.
pub(crate) fn fuzz_source_files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (wanted, file) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(Some(entries)) = service::section(file, wanted) {
        let lines: String = entries.iter().map(|entry| format!("{}={}\n", entry.key, entry.value)).collect();
        let again = service::section(&format!("[{wanted}]\n{lines}"), wanted).ok().flatten().unwrap_or_default();
        let pairs = |entries: &[service::ServiceEntry]| -> Vec<_> {
            entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        };
        assert_eq!(pairs(&again), pairs(&entries), "[{wanted}] in {file:?}");
    }
    let mut fields = wanted.split(' ').map(str::to_owned);
    let mut next = || fields.next().unwrap_or_default();
    let (hosts, rest) = (&[next()], [next(), next(), next()]);
    let rest = rest.each_ref().map(String::as_str);
    if let Ok(Some((number, password))) = passfile::first_match(file.as_bytes(), hosts, rest) {
        let line = file.split('\n').nth(number - 1).unwrap_or_default();
        let alone = passfile::first_match(line.as_bytes(), hosts, rest);
        assert_eq!(alone, Ok(Some((1, password))), "line {number} of {file:?}");
    }
}

/// Returns the passwords in the string, as far as it can be parsed.
fn passwords(text: &str) -> Vec<String> {
    let pairs = dsn::split(text).unwrap_or_default();
    pairs.into_iter().filter(|pair| pair.key == "password").map(|pair| pair.value).collect()
}

/// Returns `true` if the secret is long enough, and has enough digits, that a message cannot contain it by chance.
fn recognisable(secret: &str) -> bool {
    secret.len() >= 8 && secret.bytes().filter(u8::is_ascii_digit).count() >= 4
}

fn assert_shows_nothing(config: &Config) {
    let Some(secret) = config.get_password().filter(|secret| recognisable(secret)) else { return };
    let bare = Config::from(ConfigValues { password: None, ..(*config.inner).clone() });
    for (with, without) in
        [(format!("{config:?}"), format!("{bare:?}")), (format!("{config:#?}"), format!("{bare:#?}"))]
    {
        assert_eq!(with.matches(secret).count(), without.matches(secret).count(), "Debug shows {secret:?}");
    }
    assert_eq!(config.to_string(), bare.to_string(), "Display depends on the password");
}

/// Returns the settings that differ from the defaults, as in a connection string.
fn said(s: &ConfigValues) -> Vec<(&'static str, String)> {
    let default = ConfigValues::default();
    let mut said = Vec::new();
    let mut text = |key, value: &Option<String>| said.extend(value.clone().map(|value| (key, value)));
    text("user", &s.user);
    text("password", &s.password.clone().map(|password| password.0));
    text("dbname", &s.dbname);
    text("application_name", &s.application_name);
    text("fallback_application_name", &s.fallback_application_name);
    text("options", &s.options);
    text("passfile", &s.passfile.as_ref().map(|file| file.to_string_lossy().into_owned()));
    let list = |items: Vec<String>| Some(items.join(",")).filter(|list| !list.is_empty());
    text("host", &list(s.hosts.clone()));
    let zone = |i: usize| s.zones.get(i).and_then(Option::as_ref).map(|zone| format!("%{zone}")).unwrap_or_default();
    let address =
        |(i, a): (usize, &Option<_>)| a.map(|a: std::net::IpAddr| a.to_string() + &zone(i)).unwrap_or_default();
    text("hostaddr", &list(s.hostaddrs.iter().enumerate().map(address).collect()));
    text("port", &list(s.ports.iter().map(ToString::to_string).collect()));
    text("keepalives_idle", &s.keepalives_idle.map(|d| d.as_secs().to_string()));
    text("keepalives_interval", &s.keepalives_interval.map(|d| d.as_secs().to_string()));
    text("keepalives_count", &s.keepalives_count.map(|count| count.to_string()));
    text("tcp_user_timeout", &s.tcp_user_timeout.map(|d| d.as_millis().to_string()));
    text("keepalives", &s.omits_keepalives.then(|| "0".into()));
    text("require_auth", &list(vec![format!("{:?}", s.require_auth)]));
    if s.connect_timeout != default.connect_timeout {
        said.push((
            "connect_timeout",
            if s.connect_timeout.0 == std::time::Duration::MAX { 0 } else { s.connect_timeout.0.as_secs() }.to_string(),
        ));
    }
    said.push(("channel_binding", s.channel_binding.to_string()));
    said.push(("target_session_attrs", s.target_session_attrs.to_string()));
    said.push(("load_balance_hosts", s.load_balance_hosts.to_string()));
    said.extend(s.sslmode.map(|mode| ("sslmode", mode.to_string())));
    said.extend(said_of_tls(&s.tls));
    said
}

fn said_of_tls(tls: &TlsSettings) -> Vec<(&'static str, String)> {
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let said = [
        ("sslrootcert", file(&tls.root_cert)),
        ("sslcert", file(&tls.cert)),
        ("sslkey", file(&tls.key)),
        ("sslpassword", tls.sslpassword.as_ref().map(|_| "x".into())),
        ("sslcertmode", Some(tls.cert_mode.to_string())),
        ("sslcrl", file(&tls.crl)),
        ("sslcrldir", file(&tls.crl_dir)),
        ("sslsni", tls.omits_sni.then(|| "0".into())),
        ("ssl_min_protocol_version", tls.min_version.map(|version| version.to_string())),
        ("ssl_max_protocol_version", tls.max_version.map(|version| version.to_string())),
        ("sslnegotiation", Some(tls.negotiation.to_string())),
    ];
    said.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn to_pairs(settings: &ConfigValues) -> String {
    let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
    said(settings).iter().map(|(key, value)| format!("{key}='{}' ", quoted(value))).collect()
}

/// Writes a URL, with host, user and database by position, and with lists as parameters.
fn to_url(settings: &ConfigValues) -> String {
    let mut said = said(settings);
    let mut take = |key| match said.iter().position(|(known, _)| *known == key) {
        Some(i) => percent_encoded(&said.remove(i).1),
        None => String::new(),
    };
    let (user, password, dbname) = (take("user"), take("password"), take("dbname"));
    let host = if settings.hosts.len() == 1 { take("host") } else { String::new() };
    let parameters: Vec<_> = said.iter().map(|(key, value)| format!("{key}={}", percent_encoded(value))).collect();
    format!("postgresql://{user}:{password}@{host}/{dbname}?{}", parameters.join("&"))
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{AuthMethod, ChannelBinding, LoadBalanceHosts, SslMode, TargetSessionAttrs, sources};
    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[ -~]{0,12}", r"[a=' \\%@/?&:,+é☃\t\n]{0,8}", "\\PC{0,6}"]
    }

    fn seconds() -> impl Strategy<Value = Option<Duration>> {
        proptest::option::of((1..=32_767_u64).prop_map(Duration::from_secs))
    }

    prop_compose! {
        fn places()(
            hosts in proptest::collection::vec("[a-z/@.:%= -]{1,12}", 0..4),
            addresses in proptest::collection::vec(any::<IpAddr>(), 1..4),
            one_port in any::<bool>(),
            port in 1..=u16::MAX,
        ) -> Config {
            let mut config = Config::new();
            let count = if hosts.is_empty() { addresses.len() } else { hosts.len() };
            config = hosts.iter().fold(config, |config, host| config.host(host));
            if addresses.len() == count {
                config = addresses.iter().fold(config, |config, address| config.hostaddr(*address));
            }
            let ports = if one_port || config.inner.hosts.len().max(config.inner.hostaddrs.len()) != count { 1 } else { count };
            (0..ports).fold(config, |config, _| config.port(port))
        }
    }

    fn attrs() -> impl Strategy<Value = TargetSessionAttrs> {
        use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        proptest::sample::select(vec![Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby])
    }

    fn order() -> impl Strategy<Value = LoadBalanceHosts> {
        prop_oneof![Just(LoadBalanceHosts::Disable), Just(LoadBalanceHosts::Random)]
    }

    prop_compose! {
        fn config()(
            places in places(),
            (user, password, dbname, name, options) in (text(), text(), text(), text(), text()),
            connect in proptest::option::of(1..100_000_u64),
            (keepalives, idle, interval, count) in (any::<bool>(), seconds(), seconds(), proptest::option::of(1..=127_u32)),
            user_timeout in proptest::option::of(1..=i32::MAX as u64),
            methods in proptest::collection::vec(prop_oneof![
                Just(AuthMethod::None), Just(AuthMethod::Password), Just(AuthMethod::Md5), Just(AuthMethod::ScramSha256)
            ], 0..4),
            binding in prop_oneof![Just(ChannelBinding::Disable), Just(ChannelBinding::Prefer)],
            sslmode in prop_oneof![Just(SslMode::Disable), Just(SslMode::Allow), Just(SslMode::Prefer)],
            (passfile, attrs, order) in (text(), attrs(), order()),
        ) -> Config {
            places
                .user(user)
                .password(password)
                .dbname(dbname)
                .application_name(name)
                .options(options)
                .connect_timeout(connect.map(Duration::from_secs))
                .keepalives(keepalives)
                .keepalives_idle(idle)
                .keepalives_interval(interval)
                .keepalives_count(count)
                .tcp_user_timeout(user_timeout.map(Duration::from_millis))
                .require_auth(methods)
                .channel_binding(binding)
                .sslmode(sslmode)
                .passfile(passfile)
                .target_session_attrs(attrs)
                .load_balance_hosts(order)
        }
    }

    proptest! {
        #[test]
        fn a_configuration_written_in_either_form_is_read_back(config in config()) {
            prop_assert_eq!(&Config::without_env(&to_pairs(&config.inner)).unwrap(), &config);
            prop_assert_eq!(&Config::without_env(&to_url(&config.inner)).unwrap(), &config);
        }

        #[test]
        fn properties_hold_for_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            fuzz_dsn(&data);
        }

        #[test]
        fn properties_hold_for_text_similar_to_a_file(
            wanted in "[ab *]{0,6}",
            file in r"(\[[ab]{1,2}\]|host=|user=[a-z ]{1,3}|[ab*\\:]{1,12}|#|\PC|[ \t\r\n]){0,16}",
        ) {
            fuzz_source_files(format!("{wanted}\n{file}").as_bytes());
        }

        #[test]
        fn properties_hold_for_text_similar_to_pairs(text in r"((host|port|user|password|options|hostaddr|service|servicefile|x)[ =']{0,3}[a-z0-9,=' \\\n/]{0,12}){0,4}") {
            fuzz_dsn(text.as_bytes());
        }

        #[test]
        fn properties_hold_for_tls_settings(
            text in r"((sslmode|ssl(rootcert|cert|key|sni|crl|certmode|negotiation)|ssl_m(in|ax)_protocol_version)=(require|verify-full|direct|system|TLSv1\.[0-4]|0|/x|'')? ){0,4}",
        ) {
            fuzz_dsn(text.as_bytes());
        }

        #[test]
        fn properties_hold_for_text_similar_to_a_url(text in r"postgres(ql)?://([a-z0-9:@,%/ \[\]]|%[0-9A-F]{2}){0,20}(\?([a-z0-9=&%@ ]|port=|sslmode=|host=){0,12})?") {
            fuzz_dsn(text.as_bytes());
        }

        #[test]
        fn a_password_in_a_broken_string_is_not_shown(
            before in r"(postgres://[a-z]{0,4}:|host=a password=|password='|passwd=|postgre://u:|port=|postgres://u@h/d\?password=)",
            after in r"[a-z0-9 @/:?=&%'\\,\[]{0,16}",
        ) {
            let secret = "s3cr3t90210";
            if let Err(error) = Config::without_env(&format!("{before}{secret}{after}")) {
                prop_assert!(!format!("{error} {error:?}").contains(secret), "{error}");
            }
            if let Err(error) = Config::without_env(&format!("{before}x{after}{secret}{after}")) {
                prop_assert!(!format!("{error} {error:?}").contains(secret), "{error}");
            }
        }

        #[test]
        fn a_password_is_never_shown(config in config(), password in "[0-9]{4}[!-~]{4,9}") {
            let config = config.password(password);
            assert_shows_nothing(&config);
            if let Err(error) = config.port(0).startup_parameters() {
                prop_assert!(error.to_string().starts_with("builder: "));
            }
        }

        #[test]
        fn the_environment_gives_what_a_string_gives(user in text(), name in text()) {
            let env = |variable: &str| match variable {
                "PGUSER" => Some(user.clone().into()),
                "PGAPPNAME" => Some(name.clone().into()),
                _ => None,
            };
            let built = Config::new().user(user.clone()).application_name(name.clone());
            prop_assert_eq!(Config::from(sources::resolve("", &env).unwrap()), built);
        }
    }
}
