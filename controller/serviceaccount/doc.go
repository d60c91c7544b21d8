// Package serviceaccount keeps a default ServiceAccount in every active namespace.
package serviceaccount
