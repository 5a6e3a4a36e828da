//! Passwords and certificates of registries, devices and brokers: the same calls three times.

use prost::Message;

use crate::api::Table;
use crate::api::call::{Call, Done, Edit, now};
use crate::api::fault::{Code, Fault};
use crate::identity::secret;
use crate::model::certificate;
use crate::model::id::{self, Id};
use crate::proto::types::yandex::cloud::iot::devices::v1::DeviceCertificate as AnyCertificate;
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::{Kind, Record, State};

/// A certificate that was checked: its fingerprint and its PEM.
type Certificate = (String, String);

/// Puts the calls of all three services in the table.
pub(super) fn add(table: &mut Table) {
    registry::add(table);
    device::add(table);
    of_broker::add(table);
}

/// The hashes of the passwords of an owner.
pub(in crate::api) fn passwords<'a>(state: &'a State, owner: &'a str) -> impl Iterator<Item = &'a Record> {
    state.all(Kind::Password).filter(move |record| *record.parent == *owner)
}

/// The certificates of an owner.
pub(in crate::api) fn certificates<'a>(state: &'a State, owner: &'a str) -> impl Iterator<Item = &'a Record> {
    state.all(Kind::Certificate).filter(move |record| *record.parent == *owner)
}

/// The text of a certificate, whoever's it is: the three messages have one form.
pub(in crate::api) fn pem(record: &Record) -> Option<String> {
    AnyCertificate::decode(&*record.body).ok().map(|certificate| certificate.certificate_data)
}

/// The record of a certificate that the configuration file declares.
pub(in crate::api) fn of_file(owner: &Record, certificate: &certificate::Certificate) -> Record {
    let body = AnyCertificate {
        device_id: owner.id.to_string(),
        fingerprint: certificate.name.to_string(),
        certificate_data: certificate.pem.to_string(),
        created_at: None,
    };
    let (id, name) = (Id::from(&*certificate.name), certificate.name.to_string());
    belonging(Kind::Certificate, id, owner, name, body.encode_to_vec(), String::new())
}

/// Deletes what an owner logs in with.
pub(in crate::api::services) fn delete_all(state: &State, edit: &mut Edit, owner: &str) {
    for record in passwords(state, owner).chain(certificates(state, owner)) {
        edit.delete_silent(record.kind, record.id.clone());
    }
}

/// What a new resource is to log in with, checked, the password hashed. Takes as long as a hash does.
pub(in crate::api::services) fn given<'a>(
    call: &Call<'_>,
    password: &str,
    pems: impl Iterator<Item = &'a str>,
) -> Result<(Option<String>, Vec<Certificate>), Fault> {
    let password = match password {
        "" => None,
        password => Some(hash(call, "password", password)?),
    };
    let check = |(index, pem): (usize, &'a str)| {
        check_certificate(&format!("certificates[{index}].certificate_data"), pem)
    };
    Ok((password, pems.enumerate().map(check).collect::<Result<_, _>>()?))
}

/// Every password is tried at a login, so they are few.
fn check_room(what: &str, count: usize) -> Result<(), Fault> {
    const MOST: usize = 10;
    if count < MOST {
        return Ok(());
    }
    let text = format!("It has {count} {what}, which is as many as it may have; delete one first");
    Err(Fault::new(Code::FailedPrecondition, text))
}

/// At least 14 characters of three of four kinds, as the model system wants it.
fn hash(call: &Call<'_>, field: &str, password: &str) -> Result<String, Fault> {
    const MOST: usize = 1024;
    let kinds: [fn(char) -> bool; 4] =
        [|c| c.is_lowercase(), |c| c.is_uppercase(), |c| c.is_numeric(), |c| !c.is_alphanumeric()];
    let found = kinds.into_iter().filter(|kind| password.chars().any(kind)).count();
    let length = password.chars().count();
    if length < 14 || password.len() > MOST || found < 3 {
        let what = "A password has at least 14 characters, of three of these kinds: lower-case letters, \
                    upper-case letters, digits, others";
        return Err(Fault::field(field, what));
    }
    let _turn = call.api.turn();
    secret::hash_password(password).map_err(|error| Fault::new(Code::Internal, error.to_string()))
}

/// One X.509 certificate as PEM.
fn check_certificate(field: &str, pem: &str) -> Result<Certificate, Fault> {
    match certificate::Certificate::of_pem(pem) {
        Ok(certificate) => Ok((certificate.name.to_string(), pem.to_owned())),
        Err(error) => Err(Fault::field(field, format!("The text {error}"))),
    }
}

/// Refuses a certificate that another has: it would not be known who comes with it.
fn check_new(state: &State, fingerprint: &str) -> Result<(), Fault> {
    let taken = state.all(Kind::Certificate).find(|record| record.name == fingerprint);
    match taken {
        None => Ok(()),
        Some(other) => {
            let what = format!("The certificate {fingerprint} is one of '{}' already", other.parent);
            Err(Fault::new(Code::AlreadyExists, what))
        }
    }
}

/// What belongs to an owner.
fn belonging(kind: Kind, id: Id, owner: &Record, name: String, body: Vec<u8>, secret: String) -> Record {
    Record { parent: owner.id.clone(), secret, ..Record::new(kind, id, owner.folder.clone(), name, body) }
}

/// The message of what belongs to an owner.
fn decode<M: Message + Default>(record: &Record) -> Result<M, Fault> {
    M::decode(&*record.body).map_err(|error| Fault::new(Code::Internal, error.to_string()))
}

macro_rules! login {
    ($module:ident, $put:ident, $package:path, $service:literal, $owner:ident, $owner_id:ident,
     $password:ident, $certificate:ident,
     $add:ident, $add_metadata:ident, $delete:ident, $delete_metadata:ident, $list:ident, $listed:ident,
     $add_cert:ident, $add_cert_metadata:ident, $delete_cert:ident, $delete_cert_metadata:ident,
     $list_certs:ident, $listed_certs:ident) => {
        mod $module {
            use super::*;
            use messages::{
                $add, $add_cert, $add_cert_metadata, $add_metadata, $certificate, $delete, $delete_cert,
                $delete_cert_metadata, $delete_metadata, $list, $list_certs, $listed, $listed_certs, $owner,
                $password,
            };
            use $package as messages;

            pub(super) fn add(table: &mut Table) {
                table.add(concat!($service, "/ListPasswords"), list_passwords);
                table.add(concat!($service, "/AddPassword"), add_password);
                table.add(concat!($service, "/DeletePassword"), delete_password);
                table.add(concat!($service, "/ListCertificates"), list_certificates);
                table.add(concat!($service, "/AddCertificate"), add_certificate);
                table.add(concat!($service, "/DeleteCertificate"), delete_certificate);
            }

            pub(in crate::api::services) fn put_password(
                edit: &mut Edit,
                owner: &Record,
                hash: String,
            ) -> $password {
                let id = id::generate("are");
                let password = $password {
                    $owner_id: owner.id.to_string(),
                    id: id.to_string(),
                    created_at: Some(now()),
                };
                edit.tell_after(&password);
                let body = password.encode_to_vec();
                edit.put_silent(belonging(Kind::Password, id, owner, String::new(), body, hash));
                password
            }

            pub(in crate::api::services) fn put_certificate(
                state: &State,
                edit: &mut Edit,
                owner: &Record,
                (fingerprint, certificate_data): Certificate,
            ) -> Result<$certificate, Fault> {
                check_new(state, &fingerprint)?;
                let certificate = $certificate {
                    $owner_id: owner.id.to_string(),
                    fingerprint: fingerprint.clone(),
                    certificate_data,
                    created_at: Some(now()),
                };
                edit.tell_after(&certificate);
                let (id, body) = (Id::from(fingerprint.as_str()), certificate.encode_to_vec());
                edit.put_silent(belonging(Kind::Certificate, id, owner, fingerprint, body, String::new()));
                Ok(certificate)
            }

            fn list_passwords(call: &Call<'_>, request: $list) -> Result<$listed, Fault> {
                let state = call.api.store.state();
                let owner = call.see_record::<$owner>(&state, &request.$owner_id)?;
                let passwords = passwords(&state, &owner.id).map(decode).collect::<Result<_, _>>()?;
                Ok($listed { passwords })
            }

            fn add_password(call: &Call<'_>, request: $add) -> Result<Operation, Fault> {
                call.own_record::<$owner>(&call.api.store.state(), &request.$owner_id)?;
                let hash = hash(call, "password", &request.password)?;
                call.change("Add password", |state, edit| {
                    let owner = call.own_record::<$owner>(state, &request.$owner_id)?;
                    check_room("passwords", passwords(state, &owner.id).count())?;
                    let response = put_password(edit, owner, hash);
                    let metadata =
                        $add_metadata { $owner_id: owner.id.to_string(), password_id: response.id.clone() };
                    Ok(Done { resource: owner.id.clone(), metadata, response })
                })
            }

            fn delete_password(call: &Call<'_>, request: $delete) -> Result<Operation, Fault> {
                call.change("Delete password", |state, edit| {
                    let owner = call.own_record::<$owner>(state, &request.$owner_id)?;
                    let mut found = passwords(state, &owner.id);
                    let found = found.find(|record| *record.id == *request.password_id);
                    let missing = || Fault::not_found("password", &request.password_id);
                    let found = found.ok_or_else(missing)?;
                    edit.tell_before(&decode::<$password>(found)?);
                    edit.delete_silent(Kind::Password, found.id.clone());
                    let metadata = $delete_metadata {
                        $owner_id: owner.id.to_string(),
                        password_id: request.password_id.clone(),
                    };
                    Ok(Done { resource: owner.id.clone(), metadata, response: () })
                })
            }

            fn list_certificates(call: &Call<'_>, request: $list_certs) -> Result<$listed_certs, Fault> {
                let state = call.api.store.state();
                let owner = call.see_record::<$owner>(&state, &request.$owner_id)?;
                let certificates = certificates(&state, &owner.id).map(decode).collect::<Result<_, _>>()?;
                Ok($listed_certs { certificates })
            }

            fn add_certificate(call: &Call<'_>, request: $add_cert) -> Result<Operation, Fault> {
                let certificate = check_certificate("certificate_data", &request.certificate_data)?;
                call.change("Add certificate", |state, edit| {
                    let owner = call.own_record::<$owner>(state, &request.$owner_id)?;
                    check_room("certificates", certificates(state, &owner.id).count())?;
                    let response = put_certificate(state, edit, owner, certificate)?;
                    let metadata = $add_cert_metadata {
                        $owner_id: owner.id.to_string(),
                        fingerprint: response.fingerprint.clone(),
                    };
                    Ok(Done { resource: owner.id.clone(), metadata, response })
                })
            }

            fn delete_certificate(call: &Call<'_>, request: $delete_cert) -> Result<Operation, Fault> {
                call.change("Delete certificate", |state, edit| {
                    let owner = call.own_record::<$owner>(state, &request.$owner_id)?;
                    let mut found = certificates(state, &owner.id);
                    let found = found.find(|record| record.name == request.fingerprint);
                    let missing = || Fault::not_found("certificate", &request.fingerprint);
                    let found = found.ok_or_else(missing)?;
                    edit.tell_before(&decode::<$certificate>(found)?);
                    edit.delete_silent(Kind::Certificate, found.id.clone());
                    let metadata = $delete_cert_metadata {
                        $owner_id: owner.id.to_string(),
                        fingerprint: request.fingerprint.clone(),
                    };
                    Ok(Done { resource: owner.id.clone(), metadata, response: () })
                })
            }
        }

        /// Puts what a new owner logs in with.
        pub(in crate::api::services) fn $put(
            state: &State,
            edit: &mut Edit,
            owner: &Record,
            password: Option<String>,
            certificates: Vec<Certificate>,
        ) -> Result<(), Fault> {
            if let Some(hash) = password {
                $module::put_password(edit, owner, hash);
            }
            for certificate in certificates {
                $module::put_certificate(state, edit, owner, certificate)?;
            }
            Ok(())
        }
    };
}

login!(
    registry,
    put_registry,
    crate::proto::types::yandex::cloud::iot::devices::v1,
    "yandex.cloud.iot.devices.v1.RegistryService",
    Registry,
    registry_id,
    RegistryPassword,
    RegistryCertificate,
    AddRegistryPasswordRequest,
    AddRegistryPasswordMetadata,
    DeleteRegistryPasswordRequest,
    DeleteRegistryPasswordMetadata,
    ListRegistryPasswordsRequest,
    ListRegistryPasswordsResponse,
    AddRegistryCertificateRequest,
    AddRegistryCertificateMetadata,
    DeleteRegistryCertificateRequest,
    DeleteRegistryCertificateMetadata,
    ListRegistryCertificatesRequest,
    ListRegistryCertificatesResponse
);
login!(
    device,
    put_device,
    crate::proto::types::yandex::cloud::iot::devices::v1,
    "yandex.cloud.iot.devices.v1.DeviceService",
    Device,
    device_id,
    DevicePassword,
    DeviceCertificate,
    AddDevicePasswordRequest,
    AddDevicePasswordMetadata,
    DeleteDevicePasswordRequest,
    DeleteDevicePasswordMetadata,
    ListDevicePasswordsRequest,
    ListDevicePasswordsResponse,
    AddDeviceCertificateRequest,
    AddDeviceCertificateMetadata,
    DeleteDeviceCertificateRequest,
    DeleteDeviceCertificateMetadata,
    ListDeviceCertificatesRequest,
    ListDeviceCertificatesResponse
);
login!(
    of_broker,
    put_broker,
    crate::proto::types::yandex::cloud::iot::broker::v1,
    "yandex.cloud.iot.broker.v1.BrokerService",
    Broker,
    broker_id,
    BrokerPassword,
    BrokerCertificate,
    AddBrokerPasswordRequest,
    AddBrokerPasswordMetadata,
    DeleteBrokerPasswordRequest,
    DeleteBrokerPasswordMetadata,
    ListBrokerPasswordsRequest,
    ListBrokerPasswordsResponse,
    AddBrokerCertificateRequest,
    AddBrokerCertificateMetadata,
    DeleteBrokerCertificateRequest,
    DeleteBrokerCertificateMetadata,
    ListBrokerCertificatesRequest,
    ListBrokerCertificatesResponse
);
