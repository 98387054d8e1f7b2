"""What inlay does with a recipe: load the base, train the adapter, benchmark it, report."""
