/* What the struct of an array says. These take any object that is known to be an array: NumPy's own declarations for
 * Cython want a cast wherever a variable is not typed as one. */
#ifndef FASTNORM_ARRAYS_H
#define FASTNORM_ARRAYS_H

#include <Python.h>
#include <numpy/arrayobject.h>

/* Of any object: whether it is an array and of no subclass. */
static inline int is_array(PyObject *a) { return PyArray_CheckExact(a); }

static inline int ndim_of(PyObject *a) { return PyArray_NDIM((PyArrayObject *)a); }

static inline npy_intp *shape_of(PyObject *a) { return PyArray_DIMS((PyArrayObject *)a); }

/* In bytes. */
static inline npy_intp *strides_of(PyObject *a) { return PyArray_STRIDES((PyArrayObject *)a); }

static inline npy_intp size_of(PyObject *a) { return PyArray_SIZE((PyArrayObject *)a); }

static inline npy_intp nbytes_of(PyObject *a) { return PyArray_NBYTES((PyArrayObject *)a); }

static inline npy_intp itemsize_of(PyObject *a) { return PyArray_ITEMSIZE((PyArrayObject *)a); }

/* The number of its dtype. */
static inline int type_of(PyObject *a) { return PyArray_TYPE((PyArrayObject *)a); }

static inline PyArray_Descr *dtype_of(PyObject *a) { return PyArray_DESCR((PyArrayObject *)a); }

/* Aligned and in native byte order. */
static inline int is_behaved(PyObject *a) { return PyArray_ISBEHAVED_RO((PyArrayObject *)a); }

/* And C-contiguous. */
static inline int is_contiguous(PyObject *a) { return PyArray_ISCARRAY_RO((PyArrayObject *)a); }

static inline int is_writeable(PyObject *a) { return PyArray_ISWRITEABLE((PyArrayObject *)a); }

/* NULL of None. */
static inline void *data_of(PyObject *a) { return a == Py_None ? NULL : PyArray_DATA((PyArrayObject *)a); }

/* A new array on `data`; if that is NULL, with memory of its own. */
static inline PyObject *new_array(PyArray_Descr *dtype, int ndim, npy_intp *shape, void *data, int flags)
{
    Py_INCREF(dtype);
    return PyArray_NewFromDescr(&PyArray_Type, dtype, ndim, shape, NULL, data, flags, NULL);
}

#endif
