"""What fills, empties and checks stores."""
