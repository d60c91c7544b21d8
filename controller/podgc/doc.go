// Package podgc removes pods nobody will ever finish.
package podgc
