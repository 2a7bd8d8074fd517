"""What every socket needs: TLS as a transport, and the grammar of addresses."""
