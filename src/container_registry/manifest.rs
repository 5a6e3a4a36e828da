//! What a manifest stands for: an image, a chart, another artifact, a signature. Pure.
//!
//! Sources: OCI Image Specification 1.1 ("Guidelines for artifact usage"), Helm's and cosign's media types, and the tag
//! scheme for referrers of OCI Distribution Specification 1.1.

use serde::Deserialize;

use crate::model::container::ManifestKind;

/// Media types of manifests, for the `Accept` header.
pub(super) const MEDIA_TYPES: [&str; 5] = [
    OCI_MANIFEST,
    OCI_INDEX,
    DOCKER_MANIFEST,
    DOCKER_LIST,
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
/// The one whose media type does not tell what it is.
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SIGNED: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
];
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";

/// What can be told of a manifest without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// What it stands for.
    Kind(ManifestKind),
    /// It takes the manifest itself to say.
    Unclear,
    /// It is no manifest: a blob.
    NoManifest,
}

/// What the media types of a manifest and of its configuration tell, if they are known.
pub(super) fn by_media_type(media_type: &str, config: Option<&str>) -> Told {
    // Parameters tell nothing.
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    match (media_type, config) {
        (OCI_MANIFEST, Some(config)) => Told::Kind(by_config(config)),
        // An older client's manifest may lack a media type.
        (OCI_MANIFEST | "", None) => Told::Unclear,
        (OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST, _) => Told::Kind(ManifestKind::Image),
        _ if DOCKER_SIGNED.contains(&media_type) => Told::Kind(ManifestKind::Image),
        _ => Told::NoManifest,
    }
}

fn by_config(config: &str) -> ManifestKind {
    match config {
        _ if IMAGE_CONFIGS.contains(&config) => ManifestKind::Image,
        HELM_CONFIG => ManifestKind::Helm,
        _ => ManifestKind::Artifact,
    }
}

/// What a tag says that other programs give their manifests: `sha256-{hex}`, perhaps with `.sig`, `.att` or `.sbom`.
fn by_tag(tag: &str) -> Option<ManifestKind> {
    let rest = tag.strip_prefix("sha256-")?;
    let (hex, rest) = rest.split_at_checked(64)?;
    let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (is_hex && matches!(rest, "" | ".sig" | ".att" | ".sbom")).then_some(ManifestKind::Signature)
}

/// What a manifest stands for, as far as that can be said without its bytes.
pub(super) fn kind(told: Told, tag: Option<&str>) -> Option<ManifestKind> {
    match (tag.and_then(by_tag), told) {
        (Some(kind), _) | (None, Told::Kind(kind)) => Some(kind),
        (None, Told::Unclear | Told::NoManifest) => None,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    subject: Option<serde_json::Value>,
    #[serde(default)]
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
}

/// What a manifest says itself. One that cannot be read counts as an image: better told than not.
pub(super) fn by_bytes(json: &[u8]) -> ManifestKind {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(json) else { return ManifestKind::Image };
    if manifest.subject.is_some_and(|subject| !subject.is_null()) {
        return ManifestKind::Signature;
    }
    let config = manifest.config.map(|config| by_config(&config.media_type));
    match (config, manifest.artifact_type) {
        (Some(ManifestKind::Helm), _) => ManifestKind::Helm,
        (_, Some(artifact)) if !artifact.is_empty() => ManifestKind::Artifact,
        (Some(config), _) => config,
        // An index has no configuration.
        (None, _) => ManifestKind::Image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_what_they_can() {
        use ManifestKind::{Artifact, Helm, Image};
        for (media_type, config, told) in [
            (DOCKER_MANIFEST, None, Told::Kind(Image)),
            (DOCKER_LIST, None, Told::Kind(Image)),
            (OCI_INDEX, None, Told::Kind(Image)),
            (OCI_MANIFEST, None, Told::Unclear),
            ("application/vnd.oci.image.manifest.v1+json; charset=utf-8", None, Told::Unclear),
            (OCI_MANIFEST, Some(IMAGE_CONFIGS[0]), Told::Kind(Image)),
            (OCI_MANIFEST, Some(HELM_CONFIG), Told::Kind(Helm)),
            (OCI_MANIFEST, Some("application/vnd.oci.empty.v1+json"), Told::Kind(Artifact)),
            ("application/octet-stream", None, Told::NoManifest),
        ] {
            assert_eq!(by_media_type(media_type, config), told, "{media_type} {config:?}");
        }
    }

    #[test]
    fn tags_of_signatures_are_known() {
        let hex = "a".repeat(64);
        for ending in ["", ".sig", ".att", ".sbom"] {
            assert_eq!(by_tag(&format!("sha256-{hex}{ending}")), Some(ManifestKind::Signature));
        }
        for other in ["v1", "sha256-aa", &format!("sha256-{hex}.txt"), &format!("sha256-{}", "g".repeat(64))]
        {
            assert_eq!(by_tag(other), None, "{other}");
        }
    }

    #[test]
    fn manifests_tell_themselves() {
        use ManifestKind::{Artifact, Helm, Image, Signature};
        for (json, kind) in [
            (r#"{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"}}"#, Image),
            (r#"{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}"#, Helm),
            (
                r#"{"config":{"mediaType":"application/vnd.oci.empty.v1+json"},"artifactType":"a/b"}"#,
                Artifact,
            ),
            (
                r#"{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"subject":{"digest":"d"}}"#,
                Signature,
            ),
            (r#"{"manifests":[]}"#, Image),
            (r#"{"manifests":[],"artifactType":"a/b"}"#, Artifact),
            ("not json", Image),
        ] {
            assert_eq!(by_bytes(json.as_bytes()), kind, "{json}");
        }
    }
}
