// Package certificates approves, signs and cleans certificate signing requests.
package certificates
