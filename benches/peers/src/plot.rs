pub fn draw(_: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}
