//! Stores that need no server. The others: `real::stores`.

pub(crate) mod contract;

use std::path::Path;

use vestibule::store::{Location, Store, StoreError};
use vestibule_test_support::{runtime, tempfile};

fn at(location: &str) -> Store {
    let location = Location::parse(location, Path::new("/")).expect("a location");
    Store::new(&location, runtime().handle().clone()).expect("a store")
}

#[tokio::test]
async fn memory_keeps_what_a_store_promises() {
    contract::holds(&Store::memory(runtime().handle().clone())).await;
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn an_sqlite_file_keeps_what_a_store_promises() {
    let folder = tempfile::tempdir().unwrap();
    contract::holds(&at(&format!("sqlite:{}/sessions.db", folder.path().display()))).await;
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn an_sqlite_file_is_shared_by_processes_outlives_them_and_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let location = format!("sqlite:{}/sessions.db", folder.path().display());
    let (one, other) = (at(&location), at(&location));
    let (handle, version) = contract::created(&one, b"kept").await;
    let kept = other.get(handle).await.unwrap().unwrap();
    assert_eq!((kept.bytes.as_slice(), kept.version), (&b"kept"[..], version));
    drop((one, other));
    assert!(at(&location).get(handle).await.unwrap().is_some());
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn a_file_that_is_no_database_or_cannot_be_made_is_an_error_with_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no.db");
    std::fs::write(&file, "this is no database, and long enough to be taken for none at all".repeat(100)).unwrap();
    let error = at(&format!("sqlite:{}", file.display())).get(contract::fresh()).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    let missing = format!("sqlite:{}/no/folder/a.db", folder.path().display());
    let error = at(&missing).get(contract::fresh()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_) | StoreError::Away(_)), "{error:?}");
}
