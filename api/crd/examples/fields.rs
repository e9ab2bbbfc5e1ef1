//! Makes `fields.tsv` anew from KubeVirt's OpenAPI document beside the checkout.

#[path = "../tests/checkout/mod.rs"]
mod checkout;
#[path = "../tests/table/mod.rs"]
#[expect(dead_code, reason = "reading the table is the tests' part")]
mod table;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let swagger = checkout::beside("swagger.json").ok_or("there is nothing to make the table from")?;
    let swagger = serde_json::from_str(&std::fs::read_to_string(swagger)?)?;
    let path = checkout::root().join("api/crd/fields.tsv");
    std::fs::write(&path, table::write(&swagger))?;
    println!("wrote {}", path.display());
    Ok(())
}
