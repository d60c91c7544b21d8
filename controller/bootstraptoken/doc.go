// Package bootstraptoken signs cluster-info with bootstrap tokens and removes expired ones.
package bootstraptoken
