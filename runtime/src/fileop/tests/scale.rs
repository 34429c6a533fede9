//! Large trees.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::support::{copies, run_over};
use crate::tree::{
    ContextTree, Filter, LayerStack, NoHashes, SourceTree, fixture::World, selection_digest, walk,
};

const FOLDERS: usize = 250;
const FILES_IN_EACH: usize = 20;

fn count(tree: &dyn SourceTree) -> usize {
    let root = tree.lookup(Path::new("")).expect("root").expect("root");
    walk(tree, Path::new(""), &root, &Filter::default()).expect("walk").len() - 1
}

#[test]
fn five_thousand_files_go_from_context_to_layer_to_layer() {
    let mut world = World::new();
    let root = world.folder();
    for folder in 0..FOLDERS {
        let folder = root.join(format!("{}/{folder}", folder % 10));
        fs::create_dir_all(&folder).expect("folder");
        for file in 0..FILES_IN_EACH {
            fs::write(folder.join(format!("{file}.txt")), format!("{file}")).expect("file");
        }
    }
    let total = FOLDERS * (FILES_IN_EACH + 1) + 10;
    let context = ContextTree::open(&root, &[]).expect("context");
    let (first, second) = (world.folder(), world.folder());
    run_over(&LayerStack::new(vec![]), &context, copies(&["."], "/"), &first)
        .expect("from the context");
    let layer = LayerStack::new(vec![first.clone()]);
    assert_eq!(count(&layer), total);

    run_over(&LayerStack::new(vec![]), &layer, copies(&["/"], "/all/"), &second)
        .expect("from the layer");
    assert_eq!(count(&LayerStack::new(vec![second.clone()])), total + 1);
    let inode = |path: std::path::PathBuf| path.metadata().expect("file").ino();
    assert_eq!(
        inode(first.join("3/13/7.txt")),
        inode(second.join("all/3/13/7.txt")),
        "shared by a hard link"
    );
    assert_ne!(
        inode(first.join("3/13/7.txt")),
        inode(root.join("3/13/7.txt")),
        "copied from the context"
    );

    let digest =
        |tree: &dyn SourceTree| selection_digest(tree, &rbc_ir::Selection::default(), &NoHashes);
    assert_eq!(digest(&context).expect("digest"), digest(&layer).expect("digest"));
}
