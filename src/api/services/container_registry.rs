//! Container registries, which the configuration file declares, and what is known of their images.

use sha2::{Digest, Sha256};

use crate::api::call::Call;
use crate::api::fault::{Code, Fault};
use crate::api::list::{self, Filter};
use crate::api::resource::find;
use crate::api::{KnownImage, Table};
use crate::model::reference;
use crate::model::role::{Area, Right};
use crate::proto::types::yandex::cloud::containerregistry::v1::{
    CreateRegistryRequest, DeleteRegistryRequest, GetImageRequest, GetRegistryRequest, Image,
    ListImagesRequest, ListImagesResponse, ListRegistriesRequest, ListRegistriesResponse,
    ListRepositoriesRequest, ListRepositoriesResponse, Registry, Repository, UpdateRegistryRequest,
};
use crate::proto::types::yandex::cloud::operation::Operation;
use crate::store::Kind;

pub(super) fn add(table: &mut Table) {
    table.add("yandex.cloud.containerregistry.v1.RegistryService/Get", get);
    table.add("yandex.cloud.containerregistry.v1.RegistryService/List", list);
    table.add("yandex.cloud.containerregistry.v1.RegistryService/Create", create);
    table.add("yandex.cloud.containerregistry.v1.RegistryService/Update", update);
    table.add("yandex.cloud.containerregistry.v1.RegistryService/Delete", delete);
    table.add("yandex.cloud.containerregistry.v1.ImageService/Get", get_image);
    table.add("yandex.cloud.containerregistry.v1.ImageService/List", list_images);
    table.add("yandex.cloud.containerregistry.v1.RepositoryService/List", list_repositories);
}

fn get(call: &Call<'_>, request: GetRegistryRequest) -> Result<Registry, Fault> {
    call.see(&request.registry_id)
}

fn list(call: &Call<'_>, request: ListRegistriesRequest) -> Result<ListRegistriesResponse, Fault> {
    let (registries, next_page_token) =
        call.page_of_folder(&request.folder_id, request.page_size, &request.page_token, &request.filter)?;
    Ok(ListRegistriesResponse { registries, next_page_token })
}

/// A registry is a program somewhere else: its address and secrets have no place in this request.
fn create(_: &Call<'_>, _: CreateRegistryRequest) -> Result<Operation, Fault> {
    let what = "Container registries are declared in the configuration file (container_registries), with their \
                addresses and secrets";
    Err(Fault::new(Code::FailedPrecondition, what))
}

fn update(call: &Call<'_>, request: UpdateRegistryRequest) -> Result<Operation, Fault> {
    refuse(call, &request.registry_id)
}

fn delete(call: &Call<'_>, request: DeleteRegistryRequest) -> Result<Operation, Fault> {
    refuse(call, &request.registry_id)
}

fn refuse(call: &Call<'_>, id: &str) -> Result<Operation, Fault> {
    call.own_record::<Registry>(&call.api.store.state(), id)?;
    Err(Fault::new(Code::FailedPrecondition, "Container registries are declared in the configuration file"))
}

/// The id of an image: of its registry, repository and digest.
fn image_id(registry: &str, image: &KnownImage) -> String {
    let name = format!("{registry}/{}@{}", image.repository, image.digest);
    format!("crt{}", &reference::hex(&Sha256::digest(name.as_bytes())[..9])[..17])
}

fn image(registry: &str, image: KnownImage) -> Image {
    Image {
        id: image_id(registry, &image),
        name: format!("{registry}/{}", image.repository),
        digest: image.digest,
        tags: image.tags,
        ..Image::default()
    }
}

/// The registries that a request is about, all of which the caller may see.
fn registries(call: &Call<'_>, registry: &str, folder: &str) -> Result<Vec<String>, Fault> {
    let state = call.api.store.state();
    if !registry.is_empty() {
        let record = find(&state, Kind::ContainerRegistry, registry)?;
        call.may(&state, Right::See(Area::Registries), record)?;
        return Ok(vec![registry.to_owned()]);
    }
    if folder.is_empty() {
        return Err(Fault::field("registry_id", "One of registry_id and folder_id is needed"));
    }
    call.may_in_folder(&state, Right::See(Area::Registries), folder)?;
    let of_folder = state.all(Kind::ContainerRegistry).filter(|record| *record.folder == *folder);
    Ok(of_folder.map(|record| record.id.to_string()).collect())
}

fn images(call: &Call<'_>, registries: &[String]) -> Result<Vec<Image>, Fault> {
    let mut found = Vec::new();
    for registry in registries {
        found.extend(call.api.plant.images(registry)?.into_iter().map(|known| image(registry, known)));
    }
    Ok(found)
}

fn list_images(call: &Call<'_>, request: ListImagesRequest) -> Result<ListImagesResponse, Fault> {
    let filter = Filter::parse(&request.filter)?;
    let mut images = images(call, &registries(call, &request.registry_id, &request.folder_id)?)?;
    images.retain(|image| {
        let bare = image.name.split_once('/').map_or("", |(_, bare)| bare);
        let wanted = &request.repository_name;
        (wanted.is_empty() || wanted == bare || *wanted == image.name) && filter.takes(&image.name)
    });
    images.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let (images, next_page_token) = list::slice(images, request.page_size, &request.page_token)?;
    Ok(ListImagesResponse { images, next_page_token })
}

fn get_image(call: &Call<'_>, request: GetImageRequest) -> Result<Image, Fault> {
    let all: Vec<String> = {
        let state = call.api.store.state();
        let visible = state
            .all(Kind::ContainerRegistry)
            .filter(|record| call.may(&state, Right::See(Area::Registries), record).is_ok());
        visible.map(|record| record.id.to_string()).collect()
    };
    let found = images(call, &all)?.into_iter().find(|image| image.id == request.image_id);
    found.ok_or_else(|| Fault::not_found("image", &request.image_id))
}

fn list_repositories(
    call: &Call<'_>,
    request: ListRepositoriesRequest,
) -> Result<ListRepositoriesResponse, Fault> {
    let filter = Filter::parse(&request.filter)?;
    let images = images(call, &registries(call, &request.registry_id, &request.folder_id)?)?;
    let mut names: Vec<String> = images.into_iter().map(|image| image.name).collect();
    names.sort();
    names.dedup();
    names.retain(|name| filter.takes(name));
    let (names, next_page_token) = list::slice(names, request.page_size, &request.page_token)?;
    let repositories = names.into_iter().map(|name| Repository { id: name.clone(), name }).collect();
    Ok(ListRepositoriesResponse { repositories, next_page_token })
}
