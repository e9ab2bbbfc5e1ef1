//! Admission as a user of the cluster meets it: a real API server with our definitions, and `virt-api` behind its webhooks. Nothing
//! runs here: no nodes, no controllers.

mod filled;
mod hostile;
mod refused;
mod served;
mod site;
