// Package nodeipam hands every node its pod range.
package nodeipam
