//! Which cloud is chosen, with an environment of the test's own.

use std::collections::HashMap;
use std::fs;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

const CLOUDS: &str = r#"
clouds:
  Lab.One:
    auth: {auth_url: "https://one/v3", username: u, password: from-clouds, project_name: p}
    region_name: R1
    interface: internal
    cacert: ~/ca.pem
    image_endpoint_override: http://glance.one/v2
  two:
    auth_type: application_credential
    auth: {auth_url: "http://two/v3", application_credential_id: i, application_credential_secret: s, project_name: p}
    verify: false
"#;

fn choose_in(dir: &TempDir, vars: &[(&str, &str)], options: &CloudOptions) -> Result<Chosen> {
    let vars: HashMap<String, String> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let var = |name: &str| vars.get(name).cloned();
    choose(
        options,
        &Env { var: &var, here: dir.path().to_owned(), system: dir.path().join("etc") },
        Stage::Source,
    )
}

fn named(cloud: &str) -> CloudOptions {
    CloudOptions { cloud: Some(cloud.to_owned()), ..CloudOptions::default() }
}

fn with_clouds(text: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("clouds.yaml"), text).unwrap();
    dir
}

#[test]
fn the_option_comes_before_the_variable_before_the_credentials_before_the_only_cloud() {
    let dir = with_clouds(CLOUDS);
    let vars = [("OS_CLOUD", "two"), ("OS_AUTH_URL", "http://env/v3")];
    assert_eq!(choose_in(&dir, &vars, &named("Lab.One")).unwrap().label, "Lab.One");
    assert_eq!(choose_in(&dir, &vars, &CloudOptions::default()).unwrap().label, "two");
    let env = choose_in(&dir, &vars[1..], &CloudOptions::default()).unwrap();
    assert_eq!(env.config.auth.unwrap().auth_url.as_deref(), Some("http://env/v3"));
    let several = choose_in(&dir, &[], &CloudOptions::default()).unwrap_err();
    assert_eq!(several.kind(), Kind::Login);
    assert!(several.to_string().contains("`Lab.One`, `two`"), "{several}");
    let only = with_clouds("clouds: {only: {auth: {auth_url: 'http://x'}}}");
    assert_eq!(choose_in(&only, &[], &CloudOptions::default()).unwrap().label, "only");
}

#[test]
fn a_cloud_that_is_not_there_is_named_with_those_that_are() {
    let dir = with_clouds(CLOUDS);
    let error = choose_in(&dir, &[], &named("three")).unwrap_err();
    assert_eq!(error.kind(), Kind::Login);
    let text = error.to_string();
    assert!(text.contains("`three`") && text.contains("`two`") && text.contains("--os-cloud"), "{text}");
    let none = choose_in(&tempfile::tempdir().unwrap(), &[], &named("three")).unwrap_err().to_string();
    assert!(none.contains("no clouds.yaml") && none.contains("OS_CLIENT_CONFIG_FILE"), "{none}");
}

#[test]
fn a_clouds_settings_are_read_and_overridden() {
    let dir = with_clouds(CLOUDS);
    let home = [("HOME", "/home/u")];
    let one = choose_in(&dir, &home, &named("Lab.One")).unwrap();
    assert_eq!((one.region.as_deref(), one.interface.as_str()), (Some("R1"), "internal"));
    assert_eq!(one.tls, TlsOptions { cacert: Some("/home/u/ca.pem".into()), insecure: false });
    assert_eq!(one.image_endpoint.as_deref(), Some("http://glance.one/v2"));
    let auth = one.config.auth.unwrap();
    assert_eq!(auth.user_domain_id.as_deref(), Some("default"));
    assert_eq!(auth.project_domain_id.as_deref(), Some("default"));
    let vars = [("OS_REGION_NAME", "R2"), ("OS_INTERFACE", "admin"), ("OS_CACERT", "/env.pem")];
    let env = choose_in(&dir, &vars, &named("Lab.One")).unwrap();
    assert_eq!((env.region.as_deref(), env.interface.as_str()), (Some("R2"), "admin"));
    assert_eq!(env.tls.cacert.as_deref(), Some(Path::new("/env.pem")));
    let options = CloudOptions {
        region_name: Some("R3".into()),
        cacert: Some("/o.pem".into()),
        insecure: true,
        ..named("Lab.One")
    };
    let said = choose_in(&dir, &vars, &options).unwrap();
    assert_eq!(said.region.as_deref(), Some("R3"));
    assert_eq!(said.tls, TlsOptions { cacert: Some("/o.pem".into()), insecure: true });
}

#[test]
fn an_application_credential_has_no_scope_beside_its_own() {
    let two = choose_in(&with_clouds(CLOUDS), &[], &named("two")).unwrap();
    assert_eq!(two.config.auth_type.as_deref(), Some("v3applicationcredential"));
    assert_eq!(two.config.auth.unwrap().project_name, None);
    assert!(two.tls.insecure);
}

#[test]
fn the_secure_file_is_laid_over_and_its_secrets_are_not_quoted() {
    let dir = with_clouds(CLOUDS);
    fs::write(dir.path().join("secure.yaml"), "clouds: {Lab.One: {auth: {password: 12345}}}").unwrap();
    let auth = choose_in(&dir, &[], &named("Lab.One")).unwrap().config.auth.unwrap();
    assert_eq!(auth.password.unwrap().expose_secret(), "12345");
    assert_eq!(auth.username.as_deref(), Some("u"));
    for broken in [
        "clouds: {Lab.One: {auth: hunter2}}",
        "clouds: {Lab.One: {verify: hunter2}}",
        "clouds: [hunter2",
        "hunter2",
    ] {
        fs::write(dir.path().join("secure.yaml"), broken).unwrap();
        let text = choose_in(&dir, &[], &named("Lab.One")).unwrap_err().to_string();
        assert!(!text.contains("hunter2") && text.contains("secure.yaml"), "{text}");
    }
}

#[test]
fn the_config_file_variable_comes_first_and_a_stale_one_is_passed_over() {
    let dir = with_clouds(CLOUDS);
    let other = dir.path().join("other.yaml");
    fs::write(&other, "clouds: {three: {auth: {auth_url: 'http://three'}}}").unwrap();
    let path = other.to_str().unwrap();
    assert_eq!(choose_in(&dir, &[("OS_CLIENT_CONFIG_FILE", path)], &named("three")).unwrap().label, "three");
    assert_eq!(
        choose_in(&dir, &[("OS_CLIENT_CONFIG_FILE", "/gone.yaml")], &named("two")).unwrap().label,
        "two"
    );
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/openstack");
    fs::create_dir_all(&folder).unwrap();
    fs::rename(dir.path().join("clouds.yaml"), folder.join("clouds.yaml")).unwrap();
    assert_eq!(
        choose_in(&dir, &[("HOME", home.path().to_str().unwrap())], &named("two")).unwrap().label,
        "two"
    );
}

#[test]
fn variables_make_a_cloud_old_names_and_bare_tokens_included() {
    let dir = tempfile::tempdir().unwrap();
    let vars = [
        ("OS_AUTH_URL", "http://k/v3"),
        ("OS_USERNAME", "u"),
        ("OS_PASSWORD", "p"),
        ("OS_TENANT_NAME", "t"),
        ("OS_INSECURE", "true"),
    ];
    let cloud = choose_in(&dir, &vars, &CloudOptions::default()).unwrap();
    assert_eq!(cloud.config.auth_type.as_deref(), Some("v3password"));
    assert_eq!(cloud.config.auth.as_ref().unwrap().project_name.as_deref(), Some("t"));
    assert!(cloud.tls.insecure && cloud.bare_token.is_none());
    assert!(!format!("{cloud:?} {:?}", cloud.config).contains("\"p\""));
    let bare =
        choose_in(&dir, &[("OS_TOKEN", "t"), ("OS_ENDPOINT", "http://g")], &CloudOptions::default()).unwrap();
    assert!(bare.bare_token.is_some());
    assert_eq!(bare.image_endpoint.as_deref(), Some("http://g"));
    let token = [("OS_TOKEN", "t"), ("OS_AUTH_URL", "http://k/v3"), ("OS_PROJECT_ID", "p")];
    let rescoped = choose_in(&dir, &token, &CloudOptions::default()).unwrap();
    assert_eq!(rescoped.config.auth_type.as_deref(), Some("v3token"));
    assert!(rescoped.bare_token.is_none());
}
