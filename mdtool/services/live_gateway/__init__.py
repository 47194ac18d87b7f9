"""The live gateway: DBN files served by the vendor's live protocol."""
