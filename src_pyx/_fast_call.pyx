"""Functions whose plain calls go to the fast path of the compiled kernels without a line of Python in between."""

cimport cython

import inspect
from functools import update_wrapper
from types import MethodType

cdef extern from *:
    """
    typedef PyObject *const *Arguments;

    /* Have CPython call objects of a type by the function at `offset`, with the arguments as they lie on its stack. */
    static void call_by_vector(PyTypeObject *type, Py_ssize_t offset)
    {
        type->tp_vectorcall_offset = offset;
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
        PyType_Modified(type);
    }
    """
    ctypedef struct PyObject
    ctypedef struct PyTypeObject
    ctypedef PyObject** Arguments
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, Arguments, size_t, PyObject*) noexcept
    PyObject* Py_None
    PyObject* PyObject_GetAttr(PyObject* of, PyObject* name)
    PyObject* PyObject_Vectorcall(PyObject* callable, Arguments arguments, size_t count, PyObject* names)
    PyObject* PyTuple_GET_ITEM(PyObject* items, Py_ssize_t k)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* items)
    Py_ssize_t PyVectorcall_NARGS(size_t count)
    void Py_DECREF(PyObject* of)
    void call_by_vector(PyTypeObject* type, Py_ssize_t offset)

cdef enum:
    MOST = 24   # parameters of a function, and arguments of an entry


@cython.final
cdef class FastCall:
    """A function that hands plain calls, those with nothing but what the fast path takes, there first.

    Parameters
    ----------
    function : function
        Serves all other calls, and those for which the fast path returns None. Name, signature and documentation are
        its.
    entries : object
        Its attribute `name` is the entry, looked up for each call.
    name : str
        The entry's name.
    arguments : tuple
        The entry's arguments: a str is a parameter of the function, anything else itself. All other parameters must be
        at their defaults.
    """

    cdef vectorcallfunc call
    cdef object function, entries, name
    cdef dict __dict__
    cdef object __weakref__
    cdef tuple parameters, defaults, arguments
    cdef Py_ssize_t by_position         # how many parameters may be given by position
    cdef Py_ssize_t positional_only     # how many only by position
    cdef Py_ssize_t source[MOST]        # the parameter that an argument is; -1: none
    cdef bint unknown[MOST]             # whether the entry does not take a parameter

    def __init__(self, function, entries, name, arguments):
        cdef Py_ssize_t k
        parameters = inspect.signature(function).parameters
        if max(len(parameters), len(arguments)) > MOST:
            raise ValueError(f"FastCall: arguments and parameters must be at most {MOST}, got {arguments}")
        self.function, self.entries, self.name, self.arguments = function, entries, name, arguments
        self.parameters = tuple(parameters)
        self.defaults = tuple(p.default for p in parameters.values())
        self.by_position = sum(p.kind is not p.KEYWORD_ONLY for p in parameters.values())
        self.positional_only = sum(p.kind is p.POSITIONAL_ONLY for p in parameters.values())
        for k, argument in enumerate(arguments):
            self.source[k] = self.parameters.index(argument) if isinstance(argument, str) else -1
        for k, parameter in enumerate(self.parameters):
            self.unknown[k] = parameter not in arguments
        self.call = call
        update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)   # for who asks for the attribute: calls go by `call`

    def __repr__(self):
        return repr(self.function)

    def __reduce__(self):
        return self.function.__qualname__   # by name, as functions are pickled

    def __get__(self, instance, owner):
        return self if instance is None else MethodType(self, instance)


cdef PyObject* missing = <PyObject*> inspect.Parameter.empty     # the default of a parameter without one


cdef bint sort_out(FastCall self, Arguments given, Py_ssize_t count, PyObject* names, PyObject** values) noexcept:
    """Find the value of each parameter; False if the call is not plain, or wrong."""
    cdef PyObject* parameters = <PyObject*> self.parameters
    cdef PyObject* defaults = <PyObject*> self.defaults
    cdef Py_ssize_t k, p, size = PyTuple_GET_SIZE(parameters)
    if count > self.by_position:
        return False
    for p in range(size):
        values[p] = given[p] if p < count else PyTuple_GET_ITEM(defaults, p)
    for k in range(PyTuple_GET_SIZE(names) if names != NULL else 0):
        # Names in calls that are written out are interned: other names are left to the function, as wrong ones are.
        p = max(count, self.positional_only)
        while p < size and PyTuple_GET_ITEM(parameters, p) != PyTuple_GET_ITEM(names, k):
            p += 1
        if p == size:
            return False
        values[p] = given[count + k]
    for p in range(size):
        if values[p] == missing or (self.unknown[p] and values[p] != PyTuple_GET_ITEM(defaults, p)):
            return False
    return True


cdef PyObject* call(PyObject* callable, Arguments given, size_t count, PyObject* names) noexcept:
    cdef FastCall self = <FastCall> callable
    cdef PyObject* values[MOST]
    cdef PyObject* arguments[MOST]
    cdef PyObject* entry
    cdef PyObject* result
    cdef Py_ssize_t k, size = PyTuple_GET_SIZE(<PyObject*> self.arguments)
    if sort_out(self, given, PyVectorcall_NARGS(count), names, values):
        for k in range(size):
            if self.source[k] >= 0:
                arguments[k] = values[self.source[k]]
            else:
                arguments[k] = PyTuple_GET_ITEM(<PyObject*> self.arguments, k)
        entry = PyObject_GetAttr(<PyObject*> self.entries, <PyObject*> self.name)
        if entry == NULL:
            return NULL
        result = PyObject_Vectorcall(entry, arguments, size, NULL)
        Py_DECREF(entry)
        if result != Py_None:   # NULL is an error
            return result
        Py_DECREF(result)
    return PyObject_Vectorcall(<PyObject*> self.function, given, count, names)


cdef FastCall sample = FastCall.__new__(FastCall)
call_by_vector(<PyTypeObject*> FastCall, <char*> &sample.call - <char*> <PyObject*> sample)
