"""Law: contract clauses, duties and deadlines of the fictional jurisdiction of Norland."""
