//! Images: names, manifests, the local image store, archives, and unpacking into layers.
//!
//! An image comes in through [`load`] (archives, layouts) or the [`registry`](crate::registry),
//! lies in the store as checked blobs, is found by [`resolve`] for one platform and turned into
//! layers by [`unpack`].

mod bundle;
mod choose;
mod content;
mod error;
mod layout;
mod load;
mod local;
mod manifest;
mod reach;
mod reference;
mod save;
mod unpack;

pub use choose::{Documents, Resolved, resolve};
pub(crate) use content::{copy, publish};
pub use content::{describe, store_manifest};
pub use error::ImageError;
pub use layout::{Layout, LayoutName};
pub use load::{Loaded, Source, load};
pub use local::{ImageRow, Removed, find, forget_pulled, list, remove, resolve_local, sweep, tag};
pub(crate) use local::{is_pulled, note_pulled, note_untagged};
pub use manifest::{
    ANNOTATION_CREATED, ANNOTATION_NAME, ANNOTATION_REF, ConfigFacts, Descriptor, Document, Index,
    Manifest, PlatformJson, media_type,
};
pub(crate) use manifest::{MAX_CONFIG, MAX_MANIFEST};
pub use reach::manifests;
pub(crate) use reach::reach;
pub use reference::{Reference, ReferenceError};
pub use save::{SaveFormat, save};
pub(crate) use unpack::unpack_blob;
pub use unpack::{ImageLayer, layers_of, unpack};

/// Whether a media type says that the document is an index.
pub(crate) fn is_index_type(kind: &str) -> bool {
    matches!(kind, media_type::INDEX | media_type::DOCKER_INDEX)
}
