pub enum Format {
    Tree,
    Json,
    Dot,
    Mermaid,
}
pub fn render(_: &rbc_ir::Graph, _: Format, _: &mut dyn std::io::Write) -> std::io::Result<()> {
    Ok(())
}
